"""The time as of which the tables of a run are read: a parameter of jobs whose rows come from BigQuery.

The same time is the same query, which a cache may answer. A job that runs again and again has no such time: it reads
the tables as they are when it starts, and no cache answers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

PARAMETER = "snapshot_time"

Json = dict[str, Any]


def now() -> str:
    """This minute, as the parameter takes it."""
    return minute(datetime.now(UTC))


def minute(moment: datetime) -> str:
    """The minute of a time, in UTC, as the parameter takes it."""
    return moment.astimezone(UTC).replace(second=0, microsecond=0).isoformat()


def is_open(job: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a PipelineJob has the parameter, and neither a value nor a default for it."""
    root = job.get("pipelineSpec", {}).get("root", {})
    declared = root.get("inputDefinitions", {}).get("parameters", {}).get(PARAMETER)
    return declared is not None and "defaultValue" not in declared and PARAMETER not in values


def at_every_start(job: Mapping[str, Any], values: Mapping[str, Any]) -> Json:
    """The values for a schedule: where none says when, each run reads the tables as they are when it starts."""
    from pipeline.bigquery_query import AT_START  # with it comes DuckDB, which the triggers' function has not

    return {**values, PARAMETER: AT_START} if is_open(job, values) else dict(values)


def uncached_at_start(job: Mapping[str, Any], values: Mapping[str, Any]) -> Json:
    """The job, in which no cache answers for the tasks that read the tables as they are when they start.

    Which are those that take the parameter, if its value says so; otherwise the job is as it was.
    """
    from pipeline.bigquery_query import AT_START

    found: Json = copy.deepcopy(dict(job))
    if values.get(PARAMETER) == AT_START:
        for task in found["pipelineSpec"]["root"]["dag"]["tasks"].values():
            given = task.get("inputs", {}).get("parameters", {}).values()
            if any(one.get("componentInputParameter") == PARAMETER for one in given):
                task["cachingOptions"] = {}
    return found
