"""A command on the machines of a custom job of Vertex AI: `python -m cloud.custom_job --settings JSON -- COMMAND...`.

This is what the Trainer and the Tuner of a compiled pipeline run where the environment has `training`. The same command
with the same arguments runs on every machine of the job; this process submits it, says how it goes and ends as it does.

What was seen of this is what the client library sends to, and makes of, a server on the loopback that answers as the
documentation of the API says. It has never met the real service.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cloud.api_errors import CloudError, Remedies, explained, retrying
from cloud.worker_pools import IN_STEP, Json, check, check_tuning, tuning_pools, worker_pools
from pipeline.config import STRICT
from pipeline.container import REHEARSAL
from pipeline.environment import TrainingJob, TuningJob
from pipeline.layers import ConfigError

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import CustomJob, JobServiceClient

STRATEGY = "HEADWORKS_STRATEGY"
"""Environment variable with a strategy that `models.trainer` uses instead of the configuration's."""
TUNING_SERVICE = "HEADWORKS_TUNING_SERVICE"
"""Environment variable with the service that chooses the trials of `models.tuner`."""

_TASK_LABEL = "headworks_task"
_REHEARSED = "auto"
_LOST = frozenset({"FAILED", "CANCELLED", "CANCELLING", "EXPIRED", "PARTIALLY_SUCCEEDED"})
"""States of jobs that are not taken up."""
_ENDED = (_LOST | {"SUCCEEDED"}) - {"CANCELLING"}
_CANCELLED_STATUS = 128 + signal.SIGTERM
_POLL_SECONDS = 30.0
_RESOURCE_EXHAUSTED = 8
"""The code of google.rpc for a quota that is used up."""
_MOST_CHARACTERS = 128
"""Of a display name."""
_REMEDIES = Remedies(
    forbidden="the pipeline's account needs roles/aiplatform.user, and roles/iam.serviceAccountUser on service_account",
    not_found="look at project, region, network, kms_key and tensorboard of the environment",
    quota="ask for more, or take fewer or other machines in training",
)

Tell = Callable[[str], None]


class CustomJobError(CloudError):
    """A custom job that was refused or did not succeed; the message names it and says where its logs are."""


@dataclass(frozen=True, config=STRICT)
class JobSettings:
    """What a launcher is told when the pipeline is compiled.

    Attributes:
      name: begins the name of the job, such as `flights-trainer`.
      task: whose pools: those of a training, or those of a search.
      project: id.
      region: of the job.
      image: of its machines.
      root: `gs://` folder in which logs for a TensorBoard instance may be written.
      training: machines.
      strategy: `train.strategy`, where the run gives no other.
      tuning: of a search over several machines.
      service_account: that the job runs as.
      network: of the machines.
      kms_key: that encrypts what the service keeps of the job.
      labels: of the job.
    """

    name: str
    task: Literal["trainer", "tuner"]
    project: str
    region: str
    image: str
    root: str
    training: TrainingJob
    strategy: str
    tuning: TuningJob | None = None
    service_account: str | None = None
    network: str | None = None
    kms_key: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    @property
    def parent(self) -> str:
        """Under which the service keeps the job."""
        return f"projects/{self.project}/locations/{self.region}"

    def to_json(self) -> str:
        """As `from_json` reads it; equal settings give equal text."""
        return json.dumps(_SETTINGS.dump_python(self, mode="json", exclude_defaults=True), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> JobSettings:
        """Reads what `to_json` wrote.

        Raises:
          CustomJobError: naming the first fault.
        """
        try:
            return _SETTINGS.validate_json(text)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise CustomJobError(
                f"--settings: {place}: {fault['msg']}; compile the pipeline again"
            ) from error


_SETTINGS = TypeAdapter(JobSettings)


def command(settings: JobSettings) -> list[str]:
    """What stands before the command of a container to run it as a custom job.

    Raises:
      ConfigError: if a training on those machines cannot be, naming the keys of the environment.
    """
    if settings.task == "trainer":
        check(settings.training, settings.strategy, settings.service_account)
    else:
        check_tuning(settings.training, settings.tuning, settings.service_account)
    return ["python", "-m", "cloud.custom_job", "--settings", settings.to_json(), "--"]


def custom_job(settings: JobSettings, inner: Sequence[str]) -> Json:
    """The CustomJob, as JSON, whose machines run the command `inner`."""
    training, digest = settings.training, task_digest(settings, inner)
    scheduling: Json = {"timeout": f"{round(training.timeout_hours * 3600)}s"}
    if training.spot:
        scheduling["strategy"] = "SPOT"
    if training.spot or (settings.task == "trainer" and settings.strategy == IN_STEP):
        # A worker that comes back alone finds no place among others in step.
        scheduling["restartJobOnWorkerRestart"] = True
    spec: Json = {"workerPoolSpecs": _pools(settings, inner), "scheduling": scheduling}
    if settings.service_account:
        spec["serviceAccount"] = settings.service_account
    if settings.network:
        spec["network"] = settings.network
    if training.tensorboard:
        spec["tensorboard"] = training.tensorboard
        spec["baseOutputDirectory"] = {"outputUriPrefix": f"{settings.root.rstrip('/')}/tensorboard/{digest}"}
    job: Json = {
        "displayName": f"{settings.name[: _MOST_CHARACTERS - len(digest) - 1]}-{digest}",
        "labels": {**settings.labels, _TASK_LABEL: digest},
        "jobSpec": spec,
    }
    if settings.kms_key:
        job["encryptionSpec"] = {"kmsKeyName": settings.kms_key}
    return job


def task_digest(settings: JobSettings, inner: Sequence[str]) -> str:
    """Tells one task of one run from all others: its arguments name the outputs, which no other has."""
    return hashlib.sha256(json.dumps([settings.to_json(), *inner]).encode()).hexdigest()[:16]


def for_run(settings: JobSettings, inner: Sequence[str]) -> JobSettings:
    """The settings with the strategy that this run was given, if it was.

    Raises:
      CustomJobError: if the machines cannot train by it.
    """
    if settings.task != "trainer":
        return settings
    strategy = _parameter(inner, "strategy") or settings.strategy
    try:
        check(settings.training, strategy, settings.service_account)
    except ConfigError as error:
        raise CustomJobError(
            f"strategy {strategy}: the pipeline was compiled for {settings.strategy}:\n{error}"
        ) from error
    return replace(settings, strategy=strategy)


def run(
    settings: JobSettings,
    inner: Sequence[str],
    tell: Tell,
    stop: threading.Event,
    connection: Mapping[str, Any] | None = None,
    *,
    poll_seconds: float = _POLL_SECONDS,
) -> bool:
    """Runs a command as a custom job to its end.

    A job of the same task that is under way or has succeeded is taken up: a launcher that is started again does not
    start a second one.

    Args:
      settings: of the job.
      inner: the command and its arguments.
      tell: takes a line whenever there is news.
      stop: when it is set, the job is cancelled.
      connection: what else `JobServiceClient` takes, such as `credentials`; by default the machine's own credentials
        and the region's endpoint.
      poll_seconds: between two looks at the job.

    Returns:
      Whether it succeeded; otherwise it was cancelled because of `stop`.

    Raises:
      CustomJobError: if it is refused, or fails; naming the job, the service's reason and its logs.
    """

    def wait(seconds: float) -> None:
        stop.wait(seconds)

    with explained(settings.parent, CustomJobError, _REMEDIES):
        client = client_of("JobServiceClient", settings.region, connection)
        job = retrying(wait)(_take_up_or_submit, client, settings, inner, tell)
    with explained(job.name, CustomJobError, _REMEDIES):
        last = ""
        while not stop.is_set():
            job = retrying(wait)(client.get_custom_job, name=job.name)
            state = job.state.name.removeprefix("JOB_STATE_")
            if state != last:
                tell(f"Vertex AI: {job.name}: {state.lower().replace('_', ' ')}")
                last = state
            if state == "SUCCEEDED":
                return True
            if state in _ENDED:
                raise CustomJobError(_failure(settings, job, state))
            wait(poll_seconds)
        retrying()(client.cancel_custom_job, name=job.name)
        tell(f"Vertex AI: {job.name}: cancelled, as this task was")
        return False


def client_of(kind: str, region: str, connection: Mapping[str, Any] | None) -> Any:
    """A client of `google.cloud.aiplatform_v1` for a region.

    Over REST: that is what was tested, and it passes through proxies.
    """
    from google.cloud import aiplatform_v1

    given = {
        "transport": "rest",
        "client_options": {"api_endpoint": f"{region}-aiplatform.googleapis.com"},
        **(connection or {}),
    }
    return getattr(aiplatform_v1, kind)(**given)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that is set when this process is asked to end."""
    stop = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str]) -> int:
    """Runs the command after `--` as a custom job, or alone on this machine where the pipeline is rehearsed."""
    parser = argparse.ArgumentParser(prog="cloud.custom_job", allow_abbrev=False)
    parser.add_argument("--settings", required=True, type=JobSettings.from_json)
    try:
        own, inner = _split(arguments)
        settings = for_run(parser.parse_args(own).settings, inner)
        if os.environ.get(REHEARSAL) == "1":
            _rehearse(settings, inner)
        with stopped_by_signals() as stop:
            return 0 if run(settings, inner, _say, stop) else _CANCELLED_STATUS
    except CustomJobError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if "--" not in arguments:
        raise CustomJobError("no command: write it after --")
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def _rehearse(settings: JobSettings, inner: Sequence[str]) -> None:
    """Shows the job and becomes the command, as the only machine."""
    from google.cloud.aiplatform_v1 import CustomJob

    job = custom_job(settings, inner)
    CustomJob.from_json(json.dumps(job))  # The client library knows every field and every name.
    _say(f"rehearsal: no custom job is submitted; it would be {json.dumps(job, indent=1)}")
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    environment[STRATEGY] = _REHEARSED
    _say(
        f"rehearsal: the command runs once, on this machine alone: train.strategy is {_REHEARSED} instead of "
        f"{settings.strategy}"
    )
    os.execvpe(inner[0], list(inner), environment)


def _pools(settings: JobSettings, inner: Sequence[str]) -> list[Json]:
    first = next((place for place, word in enumerate(inner) if word.startswith("--")), len(inner))
    words, args = inner[:first], inner[first:]
    if settings.task == "trainer":
        return worker_pools(settings.training, settings.strategy, settings.image, words, args)
    environment: dict[str, str] = {}
    if settings.tuning is not None and settings.tuning.service:
        known = {"source": "cloud.tuning_job.open_study", "parent": settings.parent}
        environment[TUNING_SERVICE] = json.dumps(known, sort_keys=True)
    return tuning_pools(settings.training, settings.tuning, settings.image, words, args, environment)


def _parameter(inner: Sequence[str], name: str) -> str | None:
    """A parameter of the run among TFX's arguments."""
    flag = "--json_serialized_invocation_args"
    if flag not in inner[:-1]:
        return None
    inputs = json.loads(inner[list(inner).index(flag) + 1]).get("inputs", {})
    # The second form is that of the specification's versions before 2.1.
    value = inputs.get("parameterValues", {}).get(name) or inputs.get("parameters", {}).get(name, {}).get(
        "stringValue"
    )
    return value if isinstance(value, str) else None


def _take_up_or_submit(
    client: JobServiceClient, settings: JobSettings, inner: Sequence[str], tell: Tell
) -> CustomJob:
    """The job of this task. To ask first each time makes it safe to try again when an answer got lost."""
    from google.cloud.aiplatform_v1 import CustomJob, ListCustomJobsRequest

    wanted = custom_job(settings, inner)
    label = wanted["labels"][_TASK_LABEL]
    request = ListCustomJobsRequest(parent=settings.parent, filter=f'labels.{_TASK_LABEL}="{label}"')
    known = [
        job
        for job in client.list_custom_jobs(request=request)
        if job.state.name.removeprefix("JOB_STATE_") not in _LOST
    ]
    if known:
        newest = max(known, key=lambda job: job.create_time)
        tell(f"Vertex AI: {newest.name}: taken up, for it is this task's")
        return newest
    job = client.create_custom_job(parent=settings.parent, custom_job=CustomJob.from_json(json.dumps(wanted)))
    tell(f"Vertex AI: {job.name}: submitted; logs: {_logs(settings, job.name)}")
    return job


def _failure(settings: JobSettings, job: CustomJob, state: str) -> str:
    reason = job.error.message or "the service gives no reason"
    remedy = f"; a quota is used up: {_REMEDIES.quota}" if job.error.code == _RESOURCE_EXHAUSTED else ""
    return (
        f"{job.name}: {state.lower().replace('_', ' ')}: {reason}{remedy}; logs: {_logs(settings, job.name)}"
    )


def _logs(settings: JobSettings, name: str) -> str:
    query = quote(f'resource.labels.job_id="{name.rpartition("/")[2]}"', safe="")
    return f"https://console.cloud.google.com/logs/query;query={query}?project={settings.project}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
