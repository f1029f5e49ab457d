"""`--via vertex-batch`: rows are read and checked here, scored by a job of Vertex AI, and written here.

The source is read twice: once for the rows that Vertex AI is to score, once to join its answers with keys and carried
columns, by the very code of the other ways.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beam_jobs import batch
from beam_jobs.core import Model
from beam_jobs.decoding import Decoder
from beam_jobs.outputs import Summary
from beam_jobs.pushed import PushedModel
from beam_jobs.readers import find_files, read_file
from beam_jobs.rows import Batch, PredictionError
from cloud import batch_prediction
from cloud.batch_prediction import StoredAnswers

if TYPE_CHECKING:
    from google.cloud import storage

_LABEL_NAME, _DIGEST = 46, 16
"""Characters of a job's label, of which Vertex AI allows 63: from its name, and of what it scores."""


@dataclass(frozen=True)
class VertexBatch:
    """Where Vertex AI scores.

    Attributes:
      model: resource name of the version, in Vertex AI's registry.
      staging: `gs://` folder for instances and answers.
      machine_type: of its machines.
      max_replicas: machines at most.
      service_account: that the job runs as.
      connection: what else `aiplatform.init` takes; by default the machine's own credentials.
      storage: client of Cloud Storage; by default with the machine's own credentials.
      sleep: waits for some seconds.
    """

    model: str
    staging: str
    machine_type: str = "n1-standard-4"
    max_replicas: int = 5
    service_account: str | None = None
    connection: Mapping[str, Any] | None = None
    storage: storage.Client | None = None
    sleep: Callable[[float], None] = time.sleep


def score(
    job: batch.BatchJob, way: VertexBatch, tell: Callable[[str], None], options: Sequence[str] = ()
) -> Summary:
    """Does a job of files whose rows Vertex AI scores; otherwise as `batch.run`.

    Rows and answers lie in a folder that follows from the rows, lest a job that is under way read other rows than it
    was given. The same rows under one name are scored once: Vertex AI's job that is under way or has succeeded is taken
    up.

    Raises:
      PredictionError: as `batch.run` and `batch_prediction.run` do.
    """
    if job.table is not None:
        raise PredictionError("--via vertex-batch reads files; export the table first, or take another way")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        digest = _spool(_examples(job), rows)[:_DIGEST]
        if not rows.stat().st_size:
            return batch.run(job, options)
        staged = f"{way.staging.rstrip('/')}/{job.name}/{digest}"
        batch_prediction.upload(_spooled(rows), f"{staged}/rows.jsonl", way.storage)
    finished = batch_prediction.run(
        batch_prediction.BatchJob(
            job_id=f"{job.name[:_LABEL_NAME].replace('.', '_')}-{digest}",
            model=way.model,
            sources=(f"{staged}/rows.jsonl",),
            destination=f"{staged}/answers",
            machine_type=way.machine_type,
            max_replicas=way.max_replicas,
            service_account=way.service_account,
        ),
        tell,
        way.connection,
        sleep=way.sleep,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.sqlite"
        answers = batch_prediction.read_answers(
            finished.directory, job.model.features.label.classes, way.storage
        )
        StoredAnswers.store(path, answers, job.model.outputs).close()
        return batch.run(replace(job, reach=partial(_stored, path)), options)


def _stored(path: Path, pushed: PushedModel) -> Model:
    del pushed  # The answers are of its rows.
    return StoredAnswers(path)


def _examples(job: batch.BatchJob) -> Iterator[bytes]:
    """The rows that the model takes."""
    decoder = Decoder(job.model, job.carry)
    for file in find_files(job.inputs, job.input_format):
        for item in read_file(file, batch.read_settings(job)):
            decoded = decoder.decode(item)[0] if isinstance(item, Batch) else None
            if decoded is not None:
                yield from decoded.examples


def _spool(examples: Iterator[bytes], path: Path) -> str:
    """Writes rows to a file, in base64, a row a line; gives the file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for example in examples:
            line = base64.b64encode(example) + b"\n"
            digest.update(line)
            file.write(line)
    return digest.hexdigest()


def _spooled(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from map(base64.b64decode, file)
