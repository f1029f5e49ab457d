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
    return datetime.now(UTC).replace(second=0, microsecond=0).isoformat()


def is_open(job: Mapping[str, Any]) -> bool:
    """Whether a PipelineJob has the parameter and neither value nor default for it."""
    declared = job["pipelineSpec"]["root"].get("inputDefinitions", {}).get("parameters", {}).get(PARAMETER)
    given = job.get("runtimeConfig", {}).get("parameterValues", {})
    return declared is not None and "defaultValue" not in declared and PARAMETER not in given


def at_every_start(job: Mapping[str, Any]) -> Json:
    """The job for a schedule: each of its runs reads the tables as they are when it starts."""
    from pipeline.bigquery_query import AT_START  # with it comes DuckDB, which the triggers' function has not

    scheduled: Json = copy.deepcopy(dict(job))
    if not is_open(scheduled):
        return scheduled
    scheduled.setdefault("runtimeConfig", {}).setdefault("parameterValues", {})[PARAMETER] = AT_START
    for task in scheduled["pipelineSpec"]["root"]["dag"]["tasks"].values():
        for given in task.get("inputs", {}).get("parameters", {}).values():
            if given.get("componentInputParameter") == PARAMETER:
                task["cachingOptions"] = {}
    return scheduled
