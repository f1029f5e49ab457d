"""Schedules on Vertex AI: a compiled pipeline run again and again, and the display name by which one is found.

It has never met the real service, see `cloud.vertex_pipelines`.
"""

from __future__ import annotations

import difflib
import json
import time
import zoneinfo
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from cloud.api_errors import CloudError, explained, retrying
from cloud.compiled_pipeline import ENVIRONMENT_LABEL, PIPELINE_LABEL
from cloud.vertex_pipelines import DIGEST_LABEL, REMEDIES, JobRequest, Target, console_page, plain_state

if TYPE_CHECKING:
    from google.cloud import aiplatform_v1

Change = Literal["pause", "resume", "delete"]
_TIMEOUT_SECONDS = 60.0
_UPDATED = (
    "cron",
    "create_pipeline_job_request",
    "max_concurrent_run_count",
    "max_concurrent_active_run_count",
)


@dataclass(frozen=True)
class ScheduleRequest:
    """A schedule to be.

    Attributes:
      name: by which it is found again; the service would take several of the same name.
      cron: five fields: minute, hour, day of the month, month, day of the week.
      time_zone: of the fields, such as Europe/Berlin.
      max_concurrent: runs under way at the same time; one more is left out.
      job: what each run does.
    """

    name: str
    cron: str
    time_zone: str
    max_concurrent: int
    job: JobRequest

    def __post_init__(self) -> None:
        """Refuses what can be seen to be wrong.

        Raises:
          CloudError: naming the value.
        """
        known = zoneinfo.available_timezones()
        if self.time_zone not in known:
            close = difflib.get_close_matches(self.time_zone, known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]}?" if close else ", such as Europe/Berlin"
            raise CloudError(f"time zone {self.time_zone!r}: not in the IANA time zone database{hint}")
        if len(self.cron.split()) != 5:
            raise CloudError(
                f"cron {self.cron!r}: want five fields: minute, hour, day of the month, month, day of the week; "
                'every day at five is "0 5 * * *"'
            )

    @property
    def specification(self) -> str:
        """The times as the service takes them."""
        return f"TZ={self.time_zone} {' '.join(self.cron.split())}"


@dataclass(frozen=True)
class ScheduleStatus:
    """A schedule as it is. `labels` are those of its runs."""

    target: Target
    resource: str
    name: str
    cron: str
    state: str
    max_concurrent: int
    next_run: datetime | None
    labels: Mapping[str, str]

    @property
    def page(self) -> str:
        """Where a person looks at it."""
        return console_page(self.target, f"schedules/{self.resource.rpartition('/')[2]}")


@dataclass(frozen=True)
class Put:
    """What became of a schedule that was asked for."""

    schedule: ScheduleStatus
    outcome: Literal["made", "changed", "as it was"]


def put(request: ScheduleRequest, target: Target, sleep: Callable[[float], None] = time.sleep) -> Put:
    """Makes a schedule, or changes the one of its name; safe to try again.

    Raises:
      CloudError: if the service refuses it, or there are several of that name.
    """
    with _explained(f"schedule {request.name} in {target.parent}"):
        return retrying(sleep)(_put, request, target)


def schedules(target: Target, pipeline: str, environment: str) -> list[ScheduleStatus]:
    """The schedules that run a pipeline in an environment.

    Raises:
      CloudError: if they cannot be asked for.
    """
    wanted = {PIPELINE_LABEL: pipeline, ENVIRONMENT_LABEL: environment}
    with _explained(f"schedules in {target.parent}"):
        found = retrying()(_listed, target, "create_pipeline_job_request:*")
    return [one for one in found if wanted.items() <= one.labels.items()]


def change(target: Target, name: str, what: Change) -> ScheduleStatus:
    """Pauses, resumes or deletes a schedule.

    Returns:
      The schedule as it was before.

    Raises:
      CloudError: if there is none or several of that name, or it cannot be done.
    """
    with _explained(f"schedule {name} in {target.parent}: {what}"):
        found = retrying()(_named, target, name)
        if found is None:
            raise CloudError(f"schedule {name} in {target.parent}: there is none of that name")
        client = target.client("ScheduleService")
        call = getattr(client, f"{what}_schedule")
        done = retrying()(call, name=found.resource, timeout=_TIMEOUT_SECONDS)
        if what == "delete":
            done.result(timeout=_TIMEOUT_SECONDS)
    return found


def _explained(what: str) -> AbstractContextManager[None]:
    return explained(what, CloudError, REMEDIES)


def _put(request: ScheduleRequest, target: Target) -> Put:
    """To look first each time makes it safe to try again when an answer got lost."""
    from google.cloud import aiplatform_v1

    there = _named(target, request.name)
    body = {
        "displayName": request.name,
        "cron": request.specification,
        # The first bounds how many are started at a time, the second how many are under way.
        "maxConcurrentRunCount": request.max_concurrent,
        "maxConcurrentActiveRunCount": request.max_concurrent,
        "createPipelineJobRequest": {"parent": target.parent, "pipelineJob": request.job.job},
    }
    client = target.client("ScheduleService")
    if there is None:
        schedule = aiplatform_v1.Schedule.from_json(json.dumps(body))
        made = client.create_schedule(parent=target.parent, schedule=schedule, timeout=_TIMEOUT_SECONDS)
        return Put(_schedule(made, target), "made")
    if (there.cron, there.max_concurrent, there.labels.get(DIGEST_LABEL)) == (
        request.specification,
        request.max_concurrent,
        request.job.digest,
    ):
        return Put(there, "as it was")
    schedule = aiplatform_v1.Schedule.from_json(json.dumps({**body, "name": there.resource}))
    changed = client.update_schedule(
        schedule=schedule, update_mask={"paths": list(_UPDATED)}, timeout=_TIMEOUT_SECONDS
    )
    return Put(_schedule(changed, target), "changed")


def _named(target: Target, name: str) -> ScheduleStatus | None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    found = [one for one in _listed(target, f'display_name="{quoted}"') if one.name == name]
    if len(found) > 1:
        pages = ", ".join(one.page for one in found)
        raise CloudError(
            f"schedule {name} in {target.parent}: there are {len(found)} of that name; delete all but one: {pages}"
        )
    return found[0] if found else None


def _listed(target: Target, condition: str) -> list[ScheduleStatus]:
    client = target.client("ScheduleService")
    request = {"parent": target.parent, "filter": condition}
    return [
        _schedule(one, target) for one in client.list_schedules(request=request, timeout=_TIMEOUT_SECONDS)
    ]


def _schedule(schedule: aiplatform_v1.Schedule, target: Target) -> ScheduleStatus:
    return ScheduleStatus(
        target=target,
        resource=schedule.name,
        name=schedule.display_name,
        cron=schedule.cron,
        state=plain_state(schedule.state),
        max_concurrent=int(schedule.max_concurrent_active_run_count or schedule.max_concurrent_run_count),
        next_run=schedule.next_run_time,
        labels=dict(schedule.create_pipeline_job_request.pipeline_job.labels),
    )
