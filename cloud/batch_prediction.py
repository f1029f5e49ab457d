"""Batch prediction jobs of Vertex AI: rows are uploaded, the job is submitted and awaited, its answers are read.

What was seen of this is what the client libraries send to, and make of, a server on the loopback that answers as
the documentation of the API says. It has never met the real service.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beam_jobs.core import Answer
from beam_jobs.endpoint import read_predictions
from beam_jobs.rows import PredictionError
from cloud.api_errors import Remedies, explained, retrying

if TYPE_CHECKING:
    from google.cloud import aiplatform, storage

_MODEL = re.compile(
    r"projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/models/(?P<id>[^/@]+)(@(?P<version>.+))?"
)
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{1,63}")
_JOB_LABEL = "headworks_job"
_FORMATS = ("jsonl", "tf-record", "tf-record-gzip")
_ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"})
_LOST = (_ENDED | {"CANCELLING"}) - {"SUCCEEDED"}
"""States of jobs that are not taken up."""
_RESULTS, _ERRORS = "prediction.results", "prediction.errors_stats"
_LINES_AT_ONCE = 1024
_RESOURCE_EXHAUSTED = 8
"""The code of google.rpc for a quota that is used up."""
_REMEDIES = Remedies(
    forbidden="the account that submits needs roles/aiplatform.user, and roles/iam.serviceAccountUser on the service "
    "account; that has to read and write the bucket",
    not_found="look at the names and the location",
    quota="ask for more, take fewer or other machines, or run the job again later",
)


@dataclass(frozen=True)
class BatchJob:
    """What a batch prediction job is to do.

    Attributes:
      job_id: a job of the same id that is under way or has succeeded is taken up, not submitted again.
      model: resource name, `projects/P/locations/L/models/ID`, with `@VERSION` for other than the default one.
      sources: `gs://` files of instances.
      destination: `gs://` folder in which the service makes a folder for the answers.
      instances_format: of the sources: `jsonl` (`instance_line`), `tf-record` or `tf-record-gzip`.
      machine_type: None: the service chooses, for models that allow it.
      starting_replicas: machines at the beginning.
      max_replicas: machines at most.
      batch_size: instances that a machine takes at a time.
      service_account: that the job runs as; None: the service's own.
      labels: others than the job's id.
    """

    job_id: str
    model: str
    sources: tuple[str, ...]
    destination: str
    instances_format: str = "jsonl"
    machine_type: str | None = "n1-standard-4"
    starting_replicas: int = 1
    max_replicas: int = 5
    batch_size: int = 64
    service_account: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _MODEL.fullmatch(self.model):
            raise PredictionError(f"model {self.model!r}: want projects/PROJECT/locations/LOCATION/models/ID")
        if not _LABEL_VALUE.fullmatch(self.label):
            raise PredictionError(
                f"job id {self.job_id!r}: has to be a label: at most 63 letters, digits, - and _"
            )
        for uri in (*self.sources, self.destination):
            if not re.fullmatch(r"gs://[^/]+/.+", uri):
                raise PredictionError(f"{uri!r}: Vertex AI reads and writes gs://BUCKET/PATH")
        if not self.sources:
            raise PredictionError(f"job {self.job_id}: has no file of instances")
        if self.instances_format not in _FORMATS:
            raise PredictionError(f"format {self.instances_format!r}: want one of {', '.join(_FORMATS)}")
        if not 1 <= self.starting_replicas <= self.max_replicas:
            raise PredictionError(
                f"{self.starting_replicas} to {self.max_replicas} replicas: want 1 <= starting_replicas <= max_replicas"
            )

    @property
    def label(self) -> str:
        """The id as the value of a label, which holds small letters."""
        return self.job_id.lower()

    @property
    def place(self) -> re.Match[str]:
        """The parts of the model's name."""
        place = _MODEL.fullmatch(self.model)
        assert place  # Checked when it was made.
        return place


@dataclass(frozen=True)
class Finished:
    """A job that succeeded.

    Attributes:
      name: its resource name.
      directory: `gs://` folder with the answers.
      successful: number of rows that were scored, and
      failed: that were not; -1 where the service does not say.
    """

    name: str
    directory: str
    successful: int
    failed: int


def instance_line(example: bytes) -> bytes:
    """A serialized tf.Example as a line of a `jsonl` file of instances."""
    return b'{"b64": "' + base64.b64encode(example) + b'"}\n'


def upload(examples: Iterable[bytes], uri: str, client: storage.Client | None = None) -> int:
    """Writes a `jsonl` file of instances; the object appears when it is complete.

    Args:
      examples: serialized tf.Examples.
      uri: `gs://` file.
      client: of Cloud Storage; by default with the machine's own credentials.

    Returns:
      The number of instances.

    Raises:
      PredictionError: if it cannot be written.
    """
    count = 0
    with _explained(uri), _blob(uri, client).open("wb", content_type="application/jsonl") as file:
        for count, example in enumerate(examples, 1):  # noqa: B007
            file.write(instance_line(example))
    return count


def run(
    job: BatchJob,
    tell: Callable[[str], None],
    connection: Mapping[str, Any] | None = None,
    *,
    poll_seconds: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Finished:
    """Submits a job, or takes up the one of its id, and waits for its end.

    A process that is killed here leaves the job running; the next call with the same id goes on waiting for it.

    Args:
      job: what to do.
      tell: takes a line whenever there is progress.
      connection: what else `aiplatform.init` takes, such as `credentials` or `api_endpoint`; by default the
        machine's own credentials and the location's endpoint.
      poll_seconds: between two looks at the job.
      sleep: waits for some seconds.

    Raises:
      PredictionError: if the job cannot be submitted, another with the same id does other work, or it does not
        succeed; naming the job and the service's reason.
    """
    from google.cloud import aiplatform

    with _explained(job.model):
        try:
            aiplatform.init(
                project=job.place["project"], location=job.place["location"], **(connection or {})
            )
        except ValueError as error:  # Such as a location that it has never heard of.
            raise PredictionError(f"{job.model}: {error}") from error
        submitted = retrying(sleep)(_take_up_or_submit, job, tell)
        name = submitted.resource_name
    with _explained(name):
        last = ""
        while True:
            state = retrying(sleep)(_state, submitted)
            if (line := _progress(submitted, state)) != last:
                tell(f"Vertex AI: {name}: {line}")
                last = line
            if state in _ENDED:
                return _finished(submitted, state)
            sleep(poll_seconds)


def read_answers(
    directory: str, classes: Sequence[str], client: storage.Client | None = None
) -> Iterator[tuple[list[bytes], Answer]]:
    """The answers of a job, some hundreds at a time, in no particular order.

    Args:
      directory: `Finished.directory`.
      classes: of the label, in the model's order; empty: it predicts a number.
      client: of Cloud Storage; by default with the machine's own credentials.

    Yields:
      Serialized tf.Examples as they were uploaded, and what the model says of them.

    Raises:
      PredictionError: if there are no answers, or they are not this model's.
    """
    with _explained(directory):
        folder = _blob(f"{directory.rstrip('/')}/", client)
        blobs = list(folder.bucket.list_blobs(prefix=folder.name))
        is_empty = True
        for blob in blobs:
            name = blob.name.removeprefix(folder.name)
            if name.startswith((_RESULTS, _ERRORS)):
                is_empty = is_empty and not name.startswith(_RESULTS)
                with blob.open("rb") as lines:
                    yield from parse_answers(lines, classes, f"{directory.rstrip('/')}/{name}")
        if is_empty:
            found = ", ".join(blob.name for blob in blobs[:3]) or "nothing"
            raise PredictionError(f"{directory}: holds no {_RESULTS}-*; it holds {found}")


def parse_answers(
    lines: Iterable[bytes], classes: Sequence[str], source: str
) -> Iterator[tuple[list[bytes], Answer]]:
    """The lines of a file of answers, as `read_answers`.

    Raises:
      PredictionError: naming `source` and the line.
    """
    numbered = enumerate(lines, 1)
    while taken := list(itertools.islice(numbered, _LINES_AT_ONCE)):
        parsed = [_parse(line, f"{source}:{number}") for number, line in taken if line.strip()]
        known = [result for result in parsed if result.example is not None]
        scores = np.full((len(known), len(classes) or 1), np.nan)
        scored = [row for row, result in enumerate(known) if result.error is None]
        if scored:
            scores[scored] = read_predictions([known[row].prediction for row in scored], classes, source)
        failures = {row: result.error for row, result in enumerate(known) if result.error is not None}
        yield [result.example for result in known if result.example is not None], Answer(scores, failures)


class StoredAnswers:
    """Answers by example, in a file of this machine: the way to a model that has already answered.

    A job in this form is `beam_jobs.core.Model` for the rows that were uploaded: read again from the source, they
    become the same examples.
    """

    def __init__(self, path: Path) -> None:
        """Opens what `store` wrote."""
        self._path = path
        self._database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)
        ((self._outputs,),) = self._database.execute("SELECT outputs FROM shape").fetchall()

    @classmethod
    def store(
        cls, path: Path, answers: Iterable[tuple[Sequence[bytes], Answer]], outputs: int
    ) -> StoredAnswers:
        """Writes a new file.

        Args:
          path: of the file, which must not be there.
          answers: from `read_answers`.
          outputs: numbers a row.
        """
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE shape (outputs INTEGER)")
            database.execute("INSERT INTO shape VALUES (?)", (outputs,))
            database.execute(
                "CREATE TABLE answers (digest BLOB PRIMARY KEY, scores BLOB, failure TEXT) WITHOUT ROWID"
            )
            for examples, answer in answers:
                database.executemany(
                    # Rows that are alike are one instance: any of its answers will do, scores rather than a failure.
                    "INSERT INTO answers VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET scores = excluded.scores, "
                    "failure = excluded.failure WHERE failure IS NOT NULL",
                    (
                        (_digest(example), answer.scores[row].tobytes(), answer.failures.get(row))
                        for row, example in enumerate(examples)
                    ),
                )
        return cls(path)

    def answer(self, examples: Sequence[bytes]) -> Answer:
        """The stored answers; a row without one failed."""
        scores = np.full((len(examples), self._outputs), np.nan)
        failures: dict[int, str] = {}
        for row, example in enumerate(examples):
            found = self._database.execute(
                "SELECT scores, failure FROM answers WHERE digest = ?", (_digest(example),)
            ).fetchone()
            if found is None:
                failures[row] = "the batch prediction job has no answer for it"
            elif found[1] is not None:
                failures[row] = found[1]
            else:
                scores[row] = np.frombuffer(found[0])
        return Answer(scores, failures)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()


def _take_up_or_submit(job: BatchJob, tell: Callable[[str], None]) -> aiplatform.BatchPredictionJob:
    """The job of this id. To ask first each time makes it safe to try again when an answer got lost."""
    from google.cloud import aiplatform

    found = [
        known
        for known in aiplatform.BatchPredictionJob.list(filter=f'labels.{_JOB_LABEL}="{job.label}"')
        if _state_of(known) not in _LOST
    ]
    if found:
        newest = max(found, key=lambda known: known.create_time)
        _check_same(job, newest)
        tell(f"Vertex AI: {newest.resource_name}: taken up, for it is the job {job.job_id}")
        return newest
    submitted = aiplatform.BatchPredictionJob.submit(
        job_display_name=f"headworks-{job.label}",
        model_name=job.model,
        instances_format=job.instances_format,
        predictions_format="jsonl",
        gcs_source=list(job.sources),
        gcs_destination_prefix=job.destination,
        machine_type=job.machine_type,
        starting_replica_count=job.starting_replicas if job.machine_type else None,
        max_replica_count=job.max_replicas if job.machine_type else None,
        batch_size=job.batch_size if job.machine_type else None,
        service_account=job.service_account,
        labels={**job.labels, _JOB_LABEL: job.label},
    )
    tell(f"Vertex AI: {submitted.resource_name}: submitted")
    return submitted


def _check_same(job: BatchJob, known: aiplatform.BatchPredictionJob) -> None:
    """Whether a job of the same id does the same work. Its model may be named by the project's number."""
    resource = known.gca_resource
    model = _MODEL.fullmatch(resource.model)
    facts = {
        "model": (job.place["id"], model["id"] if model else resource.model),
        "instances": (list(job.sources), list(resource.input_config.gcs_source.uris)),
        "format": (job.instances_format, resource.input_config.instances_format),
        "destination": (job.destination, resource.output_config.gcs_destination.output_uri_prefix),
    }
    version = job.place["version"]
    if version and version.isdigit() and resource.model_version_id:
        facts["model version"] = (version, resource.model_version_id)
    for name, (wanted, found) in facts.items():
        if wanted != found:
            raise PredictionError(
                f"{known.resource_name}: is the job {job.job_id}, but its {name} is {found}, not {wanted}; give this "
                "job another id"
            )


def _state(job: aiplatform.BatchPredictionJob) -> str:
    """The state as it is now; the job then has the rest of its facts, too."""
    return str(job.state.name).removeprefix("JOB_STATE_")


def _state_of(job: aiplatform.BatchPredictionJob) -> str:
    """The state as it was listed."""
    return str(job.gca_resource.state.name).removeprefix("JOB_STATE_")


def _progress(job: aiplatform.BatchPredictionJob, state: str) -> str:
    words = state.lower().replace("_", " ")
    stats = job.completion_stats
    if not stats or not (stats.successful_count or stats.failed_count or stats.incomplete_count > 0):
        return words
    todo = f", {stats.incomplete_count:,} to do" if stats.incomplete_count > 0 else ""
    return f"{words}, {stats.successful_count:,} rows scored, {stats.failed_count:,} failed{todo}"


def _finished(job: aiplatform.BatchPredictionJob, state: str) -> Finished:
    directory, stats = job.output_info.gcs_output_directory, job.completion_stats
    if state == "SUCCEEDED" and directory:
        counts = (stats.successful_count, stats.failed_count) if stats else (-1, -1)
        return Finished(job.resource_name, directory, *counts)
    if state == "SUCCEEDED":
        raise PredictionError(f"{job.resource_name}: succeeded, but does not say where its answers are")
    partial = [failure.message for failure in job.partial_failures or ()]
    reason = (job.error.message if job.error else "") or "; ".join(partial[:3]) or "no reason is given"
    advice = ""
    if job.error and job.error.code == _RESOURCE_EXHAUSTED:
        advice = f"; a quota is used up: {_REMEDIES.quota}"
    raise PredictionError(
        f"{job.resource_name}: {_progress(job, state)}: {reason}{advice}; the same job id submits a new job"
    )


@dataclass(frozen=True)
class _Line:
    example: bytes | None
    prediction: Any = None
    error: str | None = None


def _parse(line: bytes, place: str) -> _Line:
    """A line of answers. Lines of error statistics have no instance: what they sum up is said of the rows as well."""
    try:
        content = json.loads(line)
        instance = content.get("instance")
        if instance is None and "prediction" not in content:
            return _Line(None)
        example = base64.b64decode(instance["b64"], validate=True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        shown = line[:200].decode("utf-8", "replace").strip()
        raise PredictionError(f"{place}: no answer of a batch prediction job ({error!r}): {shown}") from error
    if "prediction" in content and not content.get("error"):
        return _Line(example, content["prediction"])
    failure = content.get("error")
    message = failure.get("message", failure) if isinstance(failure, dict) else failure
    return _Line(example, error=f"Vertex AI: {message or 'no prediction, and no reason'}")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    with explained(what, PredictionError, _REMEDIES):
        yield


def _blob(uri: str, client: storage.Client | None) -> storage.Blob:
    from google.cloud import storage

    return storage.Blob.from_uri(uri, client=client or storage.Client())


def _digest(example: bytes) -> bytes:
    return hashlib.blake2b(example, digest_size=16).digest()
