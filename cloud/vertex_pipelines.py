"""Runs of compiled pipelines on Vertex AI: the request that makes one, and how it stands.

What was seen of this is what the client library sends to, and makes of, a server on the loopback that answers as the
documentation of the API says. It has never met the real service.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloud import snapshots
from cloud.api_errors import CloudError, Remedies, explained, retrying
from cloud.compiled_pipeline import ENVIRONMENT_LABEL, PIPELINE_LABEL

if TYPE_CHECKING:
    from google.cloud import aiplatform_v1

    from pipeline.environment import Environment

Json = Mapping[str, Any]

DIGEST_LABEL = "headworks-digest"
_ID = re.compile(r"[a-z][a-z0-9-]{0,126}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_TIMEOUT_SECONDS = 60.0
_SHOWN = ("name", "display_name", "state", "create_time", "start_time", "end_time", "labels", "error")
_ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "PAUSED"})
_STATE = re.compile(r"^(PIPELINE_STATE_|STATE_)")
REMEDIES = Remedies(
    forbidden="whoever submits needs roles/aiplatform.user in the project and roles/iam.serviceAccountUser on the "
    "service account",
    not_found="look at project, region and name, and whether the Vertex AI API is enabled",
    conflict="another one of this name is there",
    quota="look at the quotas of Vertex AI in this region, ask for more, or run the same again later",
    connection="look at the region and the network",
)


@dataclass(frozen=True)
class Target:
    """Where runs are made.

    Attributes:
      project: id of the project.
      region: such as `europe-west1`.
      endpoint: of a service on this machine instead of Google's, `http://127.0.0.1:PORT`; asked without credentials.
    """

    project: str
    region: str
    endpoint: str | None = None

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    def client(self, kind: str) -> Any:
        """A client of a service of the API: `PipelineService` or `ScheduleService`."""
        from google.cloud import aiplatform_v1

        options: dict[str, Any] = {"api_endpoint": f"{self.region}-aiplatform.googleapis.com"}
        credentials = None
        if self.endpoint is not None:
            from google.auth.credentials import AnonymousCredentials

            options, credentials = {"api_endpoint": self.endpoint}, AnonymousCredentials()
        # REST, so that what the tests see on the wire is what is sent to the real service.
        return getattr(aiplatform_v1, f"{kind}Client")(
            transport="rest", client_options=options, credentials=credentials
        )


@dataclass(frozen=True)
class JobRequest:
    """A run to be made.

    Attributes:
      job_id: last part of its name; the same work has the same id.
      job: the PipelineJob as JSON.
      digest: of what it does, and as whom; without a snapshot time that nobody gave.
      snapshot_time: the present minute, where nobody gave a time as of which the tables are read.
    """

    job_id: str
    job: Json
    digest: str
    snapshot_time: str | None = None


@dataclass(frozen=True)
class TaskStatus:
    """How one task of a run stands. `job` names the custom job that its container ran as."""

    name: str
    state: str
    started: datetime | None
    ended: datetime | None
    error: str | None
    job: str | None

    @property
    def seconds(self) -> float | None:
        return _seconds(self.started, self.ended)


@dataclass(frozen=True)
class RunStatus:
    """How a run stands. `tasks` is empty in a list of runs, and `snapshot_time` absent."""

    target: Target
    run_id: str
    state: str
    created: datetime | None
    started: datetime | None
    ended: datetime | None
    error: str | None
    labels: Mapping[str, str]
    tasks: tuple[TaskStatus, ...] = ()
    snapshot_time: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.state.upper() in _ENDED

    @property
    def is_success(self) -> bool:
        return self.state == "succeeded"

    @property
    def seconds(self) -> float | None:
        return _seconds(self.started, self.ended)

    @property
    def failed_tasks(self) -> tuple[TaskStatus, ...]:
        return tuple(task for task in self.tasks if task.state == "failed")

    @property
    def page(self) -> str:
        """Where a person looks at it."""
        return console_page(self.target, f"runs/{self.run_id}")


@dataclass(frozen=True)
class Submitted:
    """A run that Vertex AI took; `is_new` is false where it had been made before."""

    run: RunStatus
    is_new: bool


def job_request(compiled: Json, settings: Environment, values: Json, run_id: str | None = None) -> JobRequest:
    """The request that makes a run, in which no more tasks are begun after one has failed.

    Where the job reads tables as of a time, and `values` has none, it is the present minute. That minute is no part of
    what the run does, so that the same asked for again is the same; its day (UTC) is part of a derived id, so that what
    is asked for on another day is another run.

    Args:
      compiled: a PipelineJob as JSON, as `headworks compile` writes it.
      settings: of the environment that it is to run in.
      values: of its parameters.
      run_id: names the run; None: derived from what it does, so that the same is not done twice.

    Raises:
      CloudError: if there is no service account or folder, or the id or a label cannot be one.
    """
    folder = compiled.get("runtimeConfig", {}).get("gcsOutputDirectory") or settings.root
    if settings.service_account is None or folder is None:
        raise CloudError("service_account, root: the environment has to name both; there are no defaults")
    work: dict[str, Any] = {
        "displayName": compiled.get("displayName") or _pipeline(compiled),
        "pipelineSpec": compiled["pipelineSpec"],
        "runtimeConfig": {
            "gcsOutputDirectory": folder,
            "parameterValues": dict(values),
            "failurePolicy": "PIPELINE_FAILURE_POLICY_FAIL_FAST",
        },
        "serviceAccount": settings.service_account,
    }
    if settings.network is not None:
        work["network"] = settings.network
    if settings.kms_key is not None:
        work["encryptionSpec"] = {"kmsKeyName": settings.kms_key}
    digest = hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:32]
    snapshot_time = snapshots.now() if snapshots.is_open(compiled, values) else None
    if snapshot_time is not None:
        work["runtimeConfig"]["parameterValues"][snapshots.PARAMETER] = snapshot_time
    labels = {**settings.labels, **compiled.get("labels", {}), DIGEST_LABEL: digest}
    for name, value in labels.items():
        if not _LABEL_VALUE.fullmatch(value):
            raise CloudError(f"label {name}: {value!r}: want small letters, digits, - and _, at most 63")
    name = _derived_id(compiled, values, snapshot_time, digest) if run_id is None else run_id
    if not _ID.fullmatch(name):
        raise CloudError(
            f"run id {name!r}: want a small letter, then small letters, digits and -, at most 127 in all"
        )
    return JobRequest(name, {**work, "labels": labels}, digest, snapshot_time)


def submit(request: JobRequest, target: Target, sleep: Callable[[float], None] = time.sleep) -> Submitted:
    """Makes a run; one of the same id that does the same is taken for it, so it is safe to try again.

    Raises:
      CloudError: if the service refuses it, or a run of the same id does other work.
    """
    from google.api_core.exceptions import Conflict
    from google.cloud import aiplatform_v1

    with explained(f"run {request.job_id} in {target.parent} was not made", CloudError, REMEDIES):
        client = target.client("PipelineService")
        job = aiplatform_v1.PipelineJob.from_json(json.dumps(request.job))
        try:
            made = retrying(sleep)(
                client.create_pipeline_job,
                parent=target.parent,
                pipeline_job=job,
                pipeline_job_id=request.job_id,
                timeout=_TIMEOUT_SECONDS,
            )
            return Submitted(_run(made, target), is_new=True)
        except Conflict:
            there = status(target, request.job_id, sleep)
    if there.labels.get(DIGEST_LABEL) != request.digest:
        raise CloudError(
            f"run {request.job_id}: is there already and does something else (it {there.state}, {there.page}); "
            "give this one another --run-id"
        )
    return Submitted(there, is_new=False)


def status(target: Target, run_id: str, sleep: Callable[[float], None] = time.sleep) -> RunStatus:
    """How a run and each of its tasks stand.

    Raises:
      CloudError: if there is no such run, or it cannot be asked for.
    """
    name = f"{target.parent}/pipelineJobs/{run_id}"
    with explained(f"run {run_id} in {target.parent}", CloudError, REMEDIES):
        client = target.client("PipelineService")
        return _run(retrying(sleep)(client.get_pipeline_job, name=name, timeout=_TIMEOUT_SECONDS), target)


def recent(target: Target, pipeline: str, environment: str, limit: int) -> list[RunStatus]:
    """The latest runs of a pipeline in an environment, the newest first, without their tasks.

    Raises:
      CloudError: if they cannot be asked for.
    """
    import itertools

    request = {
        "parent": target.parent,
        "filter": f'labels.{PIPELINE_LABEL}="{pipeline}" AND labels.{ENVIRONMENT_LABEL}="{environment}"',
        "order_by": "create_time desc",
        "page_size": limit,
        "read_mask": {"paths": list(_SHOWN)},
    }
    with explained(f"runs in {target.parent}", CloudError, REMEDIES):
        client = target.client("PipelineService")
        listed = retrying()(client.list_pipeline_jobs, request=request, timeout=_TIMEOUT_SECONDS)
        return [_run(job, target) for job in itertools.islice(listed, limit)]


def follow(
    target: Target, run_id: str, poll_seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[RunStatus]:
    """How a run stands, again and again until it has ended.

    Raises:
      CloudError: if it cannot be asked for any more; the run goes on.
    """
    while True:
        found = status(target, run_id, sleep)
        yield found
        if found.has_ended:
            return
        sleep(poll_seconds)


def console_page(target: Target, path: str) -> str:
    """The page of the console that shows a run or a schedule."""
    base = "https://console.cloud.google.com/vertex-ai/pipelines/locations"
    return f"{base}/{target.region}/{path}?project={target.project}"


def plain_state(state: Any) -> str:
    """A state of the API in small letters, such as `cancel pending`."""
    return _STATE.sub("", str(state.name)).lower().replace("_", " ")


def _derived_id(compiled: Json, values: Json, snapshot_time: str | None, digest: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", _pipeline(compiled).lower()).strip("-")
    span = [f"span{values['span']}"] if "span" in values else []
    day = [snapshot_time.partition("T")[0].replace("-", "")] if snapshot_time is not None else []
    return "-".join([name, *span, *day, digest[:12]])


def _pipeline(compiled: Json) -> str:
    name: str = compiled["pipelineSpec"].get("pipelineInfo", {}).get("name", "pipeline")
    return name


def _run(job: aiplatform_v1.PipelineJob, target: Target) -> RunStatus:
    details = list(job.job_detail.task_details)
    groups = {detail.parent_task_id for detail in details}
    return RunStatus(
        target=target,
        run_id=job.name.rpartition("/")[2],
        state=plain_state(job.state),
        created=job.create_time,
        started=job.start_time,
        ended=job.end_time,
        error=job.error.message or None,
        labels=dict(job.labels),
        snapshot_time=dict(job.runtime_config.parameter_values).get(snapshots.PARAMETER),
        # What other tasks belong to is a graph, not work.
        tasks=tuple(_task(detail) for detail in details if detail.task_id not in groups),
    )


def _task(detail: aiplatform_v1.PipelineTaskDetail) -> TaskStatus:
    executor = detail.executor_detail
    job = executor.container_detail.main_job or executor.custom_job_detail.job
    return TaskStatus(
        detail.task_name,
        plain_state(detail.state),
        detail.start_time,
        detail.end_time,
        detail.error.message or None,
        job or None,
    )


def _seconds(started: datetime | None, ended: datetime | None) -> float | None:
    return None if started is None or ended is None else (ended - started).total_seconds()
