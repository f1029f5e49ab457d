"""Pipelines on Dataflow: which machines run them, the job that is submitted, and how it ends."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, with_config

from beam_jobs.rows import PredictionError

if TYPE_CHECKING:
    import apache_beam as beam
    from google.cloud import dataflow_v1beta3

_IMAGE = re.compile(r"[a-z0-9][\w./:-]*@sha256:[0-9a-f]{64}")
_BUCKET = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,61}[a-z0-9])(?P<folder>/.*)?")
_REGION = re.compile(r"[a-z]+-[a-z]+\d+")
_ACCOUNT = re.compile(r"[\w.-]+@[\w.-]+")
_SUBNETWORK = re.compile(
    r"(https://www\.googleapis\.com/compute/[\w./-]+/)?regions/[a-z0-9-]+/subnetworks/[a-z0-9-]+"
)
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_RECORD = "submission.json"
_CHECK = "may-be-written"
_ENDED_WELL = frozenset({"JOB_STATE_DONE", "JOB_STATE_DRAINED"})
_ENDED_BADLY = frozenset({"JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_UPDATED"})


class DataflowError(PredictionError):
    """Dataflow did not take, or did not do, a job; the message is one sentence that says what to change."""


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class DataflowSettings:
    """Where a job runs and on what.

    Attributes:
      project: id of the project.
      region: such as `europe-west1`.
      staging: `gs://` folder for what the workers need to begin.
      temp: `gs://` folder for what they write on the way.
      image: of the workers, by digest: `HOST/PATH@sha256:…`. A tag may be moved while a job runs, and workers that
        start later would then run other code than those before.
      service_account: that the workers act as. Without one they would be the project's default, which may do anything.
      machine_type: of a worker.
      min_workers: kept even if there is little to do.
      max_workers: at most; as many as `min_workers`: always so many.
      subnetwork: `regions/REGION/subnetworks/NAME`; None: the project's default network.
      private_ips: workers have no address on the internet.
      labels: by which costs are told apart.
      endpoint: of a service on this machine instead of Google's, `http://localhost:PORT`; asked without credentials.
    """

    project: str
    region: str
    staging: str
    temp: str
    image: str
    service_account: str
    machine_type: str = "n2-standard-4"
    min_workers: int = 1
    max_workers: int = 10
    subnetwork: str | None = None
    private_ips: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    endpoint: str | None = None

    def __post_init__(self) -> None:
        """Refuses what the service would refuse later, or would do otherwise than meant.

        Raises:
          DataflowError: naming the setting, its value and what is wanted.
        """
        if not _IMAGE.fullmatch(self.image):
            raise DataflowError(
                f"image {self.image}: name it by digest (HOST/PATH@sha256:…); a tag can be moved while a job runs, and "
                "workers that start later would run other code"
            )
        self._require(_REGION, "region", self.region, "such as europe-west1")
        self._require(_BUCKET, "staging", self.staging, "gs://BUCKET/FOLDER")
        self._require(_BUCKET, "temp", self.temp, "gs://BUCKET/FOLDER")
        self._require(
            _ACCOUNT, "service_account", self.service_account, "NAME@PROJECT.iam.gserviceaccount.com"
        )
        if self.subnetwork is not None:
            self._require(_SUBNETWORK, "subnetwork", self.subnetwork, "regions/REGION/subnetworks/NAME")
        for name, value in self.labels.items():
            self._require(
                _LABEL, "labels", name, "small letters, digits, - and _, a letter first, at most 63"
            )
            self._require(_LABEL_VALUE, f"labels.{name}", value, "small letters, digits, - and _, at most 63")
        if not 1 <= self.min_workers <= self.max_workers:
            raise DataflowError(
                f"min_workers {self.min_workers}: want 1 to max_workers, which is {self.max_workers}"
            )

    @staticmethod
    def _require(pattern: re.Pattern[str], name: str, value: str, wanted: str) -> None:
        if not pattern.fullmatch(value):
            raise DataflowError(f"{name} {value!r}: want {wanted}")

    def __str__(self) -> str:
        return f"{self.project}/{self.region}"


def job_name(job_id: str) -> str:
    """The name of a job on Dataflow, where one name runs once at a time: the same id has the same name.

    An id that is no name is made one, with a digest that tells it from others that look alike then.
    """
    if _NAME.fullmatch(job_id):
        return job_id
    digest = hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    readable = re.sub("[^a-z0-9]+", "-", job_id.lower()).strip("-")[:48].rstrip("-")
    return f"job-{readable}-{digest}" if readable else f"job-{digest}"


def options(settings: DataflowSettings, job_id: str | None, *, streaming: bool = False) -> list[str]:
    """The options with which Beam submits a job; they ask nothing of the network. Without an id Beam makes a name."""
    experiments = ["use_runner_v2"]
    given = [
        "--runner=DataflowRunner",
        f"--project={settings.project}",
        f"--region={settings.region}",
        *([f"--job_name={job_name(job_id)}"] if job_id is not None else []),
        f"--staging_location={settings.staging}",
        f"--temp_location={settings.temp}",
        f"--sdk_container_image={settings.image}",
        # All code is in the image: nothing of this process is pickled along.
        "--no_save_main_session",
        f"--machine_type={settings.machine_type}",
        f"--service_account_email={settings.service_account}",
        f"--num_workers={settings.min_workers}",
        f"--max_num_workers={settings.max_workers}",
        "--no_use_public_ips" if settings.private_ips else "--use_public_ips",
        *(f"--labels={name}={value}" for name, value in settings.labels.items()),
    ]
    if settings.min_workers == settings.max_workers:
        given.append("--autoscaling_algorithm=NONE")
    else:
        given.append("--autoscaling_algorithm=THROUGHPUT_BASED")
        given.append(f"--dataflow_service_options=min_num_workers={settings.min_workers}")
    if settings.subnetwork is not None:
        given.append(f"--subnetwork={settings.subnetwork}")
    if streaming:
        given += ["--streaming", "--enable_streaming_engine"]
    if settings.endpoint is not None:
        given += [f"--dataflow_endpoint={settings.endpoint}", "--no_auth"]
    return [*given, *(f"--experiments={name}" for name in experiments)]


@dataclass(frozen=True)
class SubmittedJob:
    """A job that Dataflow took; it runs on, whether or not anybody waits for it."""

    settings: DataflowSettings
    name: str
    id: str

    @property
    def page(self) -> str:
        """Where a person looks at it."""
        place = f"{self.settings.region}/{self.id}?project={self.settings.project}"
        return f"https://console.cloud.google.com/dataflow/jobs/{place}"

    def wait(self, told: Callable[[str], object] | None = None, poll_s: float = 15.0) -> str:
        """Waits for the end.

        Args:
          told: called with every new state: `running`, `done`, `failed` and so on.
          poll_s: seconds between questions.

        Returns:
          How it ended: `done` or `drained`.

        Raises:
          DataflowError: if it failed, with the service's last error; was cancelled or replaced by an update; or cannot
            be asked for any more (it then runs on).
        """
        for state in self._states(poll_s):
            if told is not None:
                told(_plain(state))
            if state in _ENDED_WELL:
                return _plain(state)
            if state in _ENDED_BADLY:
                raise DataflowError(f"job {self.name} {_plain(state)}: {self._last_error()}; see {self.page}")
        raise AssertionError("a job's states do not end")

    def cancel(self) -> None:
        """Asks the service to stop the job.

        Raises:
          DataflowError: if it cannot be asked; the job then runs on.
        """
        from google.cloud import dataflow_v1beta3 as api

        client = api.JobsV1Beta3Client(**client_settings(self.settings))
        request = api.UpdateJobRequest(
            project_id=self.settings.project,
            location=self.settings.region,
            job_id=self.id,
            job=api.Job(requested_state=api.JobState.JOB_STATE_CANCELLED),
        )
        with explained(f"job {self.name} runs on ({self.page}), as it cannot be cancelled"):
            client.update_job(request)

    def _states(self, poll_s: float) -> Iterator[str]:
        from google.cloud import dataflow_v1beta3 as api

        client = api.JobsV1Beta3Client(**client_settings(self.settings))
        request = api.GetJobRequest(
            project_id=self.settings.project, location=self.settings.region, job_id=self.id
        )
        last = ""
        while True:
            with explained(
                f"job {self.name} was submitted and runs on ({self.page}), but cannot be asked for"
            ):
                state = _answered(lambda: client.get_job(request)).current_state.name
            if state != last:
                last = state
                yield state
            time.sleep(poll_s)

    def _last_error(self) -> str:
        from google.cloud import dataflow_v1beta3 as api

        client = api.MessagesV1Beta3Client(**client_settings(self.settings))
        request = api.ListJobMessagesRequest(
            project_id=self.settings.project,
            location=self.settings.region,
            job_id=self.id,
            minimum_importance=api.JobMessageImportance.JOB_MESSAGE_ERROR,
        )
        with explained(f"job {self.name} has ended ({self.page}), but its messages cannot be read"):
            texts = [message.message_text for message in client.list_job_messages(request)]
        # What a worker raised says more than that the work was tried four times.
        told = [text for text in texts if "Traceback" in text] or texts
        return _last_line(told[-1]) if told else "the service says no more"


def submit(
    build: Callable[[beam.Pipeline], object],
    settings: DataflowSettings,
    job_id: str,
    *,
    streaming: bool = False,
) -> SubmittedJob:
    """Submits a pipeline and returns when Dataflow has it.

    Args:
      build: adds the steps to a pipeline.
      settings: where it is to run.
      job_id: names the job: while it runs, no other one of the same id is taken.
      streaming: whether it reads without end.

    Raises:
      DataflowError: if the files cannot be staged or the service does not take the job; nothing runs then.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    name = job_name(job_id)
    _record(settings, name, streaming)
    pipeline = beam.Pipeline(options=PipelineOptions(options(settings, job_id, streaming=streaming)))
    build(pipeline)
    with explained(f"job {name} in {settings} was not started"):
        result = pipeline.run()
    return SubmittedJob(settings, name, str(result.job_id()))


def run(
    build: Callable[[beam.Pipeline], object],
    settings: DataflowSettings,
    job_id: str,
    told: Callable[[str], object],
    poll_s: float = 15.0,
) -> None:
    """Submits a pipeline that ends, and waits for its end; an interrupt cancels it.

    Args:
      build: adds the steps to a pipeline.
      settings: where it is to run.
      job_id: names the job: while it runs, no other one of the same id is taken.
      told: called with one line of progress at a time.
      poll_s: seconds between questions for its state.

    Raises:
      DataflowError: as `submit` and `SubmittedJob.wait` do.
    """
    job = submit(build, settings, job_id)
    told(f"job {job.name}: {job.page}")
    try:
        job.wait(lambda state: told(f"job {job.name}: {state}"), poll_s)
    except KeyboardInterrupt:
        job.cancel()
        told(f"job {job.name}: asked to stop")
        raise


def check_staging(settings: DataflowSettings) -> None:
    """Finds out at once whether this machine has credentials and may write to the staging folder.

    Beam would try either for minutes, and print a traceback each time.

    Raises:
      DataflowError: if not.
    """
    _stage(settings, _CHECK, "", f"nothing was started in {settings}")


def _record(settings: DataflowSettings, name: str, streaming: bool) -> None:
    """Says in the staging folder what is submitted."""
    facts = {"job": name, "image": settings.image, "streaming": streaming, "labels": dict(settings.labels)}
    _stage(
        settings,
        f"{name}.{_RECORD}",
        json.dumps(facts, indent=1),
        f"job {name} in {settings} was not started",
    )


def _stage(settings: DataflowSettings, name: str, content: str, what: str) -> None:
    from google.cloud import storage

    found = _BUCKET.fullmatch(settings.staging)
    assert found is not None, "the settings were checked"
    path = "/".join(part for part in ((found["folder"] or "") + "/" + name).split("/") if part)
    with explained(f"{what}: staging folder {settings.staging}"):
        client = storage.Client(project=settings.project)
        client.bucket(found["bucket"]).blob(path).upload_from_string(content, "application/json")


def client_settings(settings: DataflowSettings) -> dict[str, Any]:
    """How a client of the Dataflow API is made to reach the service that the settings mean."""
    if settings.endpoint is None:
        return {}
    from google.auth.credentials import AnonymousCredentials

    return {
        "credentials": AnonymousCredentials(),
        "client_options": {"api_endpoint": settings.endpoint},
        "transport": "rest",
    }


def _answered(ask: Callable[[], dataflow_v1beta3.Job]) -> dataflow_v1beta3.Job:
    """Asks again while the service is busy or has not yet heard of what it has just made."""
    from google.api_core.exceptions import NotFound, ServerError, TooManyRequests
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    again = Retrying(
        retry=retry_if_exception_type((NotFound, ServerError, TooManyRequests)),
        wait=wait_random_exponential(multiplier=_BACKOFF_S, max=60),
        stop=stop_after_attempt(6),
        reraise=True,
    )
    return again(ask)


_BACKOFF_S = 1.0


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns errors of Beam and Google's libraries into one sentence that begins with what was not done.

    Raises:
      DataflowError: for lacking credentials, permission, quota, a name that is taken, and whatever else was refused.
    """
    from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except DataflowJobAlreadyExistsError as error:
        raise DataflowError(f"{what}: {_TAKEN}") from error
    except (GoogleAPIError, GoogleAuthError, RequestException, OSError) as error:
        raise DataflowError(f"{what}: {_meaning(error)}") from error


_TAKEN = "a job of this name is running; wait for it, or drain or cancel it first"


def _meaning(error: BaseException) -> str:
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError, TransportError

    said = _last_line(_said(error))
    if isinstance(error, api.Conflict):
        return f"{_TAKEN} ({said})"
    if isinstance(error, TransportError):
        return f"no connection: {said}"
    if isinstance(error, GoogleAuthError | api.Unauthorized):
        return (
            f"no credentials: {said}; log in with `gcloud auth application-default login`, "
            "or set GOOGLE_APPLICATION_CREDENTIALS"
        )
    if isinstance(error, api.Forbidden):
        return (
            f"not allowed: {said}; who submits needs roles/dataflow.developer, roles/iam.serviceAccountUser on the "
            "workers' account and roles/storage.objectAdmin on the buckets"
        )
    if isinstance(error, api.NotFound):
        return (
            f"not found: {said}; look at project, region and bucket, and whether the Dataflow API is enabled"
        )
    if isinstance(error, api.TooManyRequests):
        return f"a quota is used up: {said}; run again later, ask for fewer workers or for more quota"
    return said


def _said(error: BaseException) -> str:
    """What the service said, without the request; of a refused upload the library gives its answer as JSON."""
    text = re.sub(r"^(?:\d+ )?(?:GET|POST|PUT|PATCH) \S+: ", "", str(getattr(error, "message", "") or error))
    found = re.match(r'\{.*?"message": *"(?P<message>[^"]*)"', text, re.DOTALL)
    return found["message"] if found else text


def _plain(state: str) -> str:
    return state.removeprefix("JOB_STATE_").lower().replace("_", " ")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".;") if lines else "no reason was given"
