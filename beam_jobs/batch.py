"""The batch job: rows of files or a table, scored, to files that appear together when all is done.

read ──► score ──┬──► predictions ──► shards ─┐
  └──────────────┴──► dead letters ─► shards ─┴──► records ──► published, or the job fails
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, Protocol

import apache_beam as beam
import pyarrow as pa
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs import outputs
from beam_jobs.core import Model
from beam_jobs.decoding import Decoder, check_carried
from beam_jobs.encoding import Encoder, answer_fields
from beam_jobs.formats.text import ReadSettings
from beam_jobs.handler import ScoringHandler
from beam_jobs.outputs import (
    DEAD_LETTERS,
    PREDICTIONS,
    JobFolder,
    SourceRead,
    Summary,
    WriteRecords,
    WriteShards,
)
from beam_jobs.pushed import PushedModel
from beam_jobs.readers import DEAD_LETTERS as UNREADABLE
from beam_jobs.readers import FILES, InputFile, ReadFiles, Wanted, absent_columns, check_columns, find_files
from beam_jobs.rows import Batch, Outcome, PredictionError, own_error, plainly
from beam_jobs.writers import DeadLettersFormat, RowsFormat

LOCAL_OPTIONS = ("--runner=FnApiRunner", "--direct_num_workers=1")
"""Without a named runner Beam looks for Prism on the network; one process is the fastest at the size of a laptop."""


@dataclass(frozen=True)
class TableSource:
    """Rows of a table: its name, and what makes a transform that gives them as batches (one serves one pipeline)."""

    name: str
    read: Callable[[], beam.PTransform]


Execute = Callable[[Callable[[beam.Pipeline], None]], object]
"""Makes a pipeline, has its steps added, runs it and waits for its end."""


class Destination(Protocol):
    """A table in which a job's rows are replaced at once."""

    def prepare(self, job_id: str, schema: pa.Schema) -> None:
        """Sees that the table takes rows of this schema, before the work is done."""

    def replace(self, job_id: str, schema: pa.Schema, files: Sequence[str], rows: int) -> None:
        """Puts the rows of Parquet files, which are so many, in the place of what the job wrote before."""


@dataclass(frozen=True)
class BatchJob:
    """What to score, with what, and where to.

    Attributes:
      model: the version.
      inputs: files, folders and globs, on this machine or in an object store.
      output: folder that gets a folder for the job.
      table: rows to read instead of files.
      destination: a table that gets the predictions, too, before the folder appears; wants Parquet.
      input_format: of all files; None: each file's suffix says.
      output_format: one of `writers.ROWS_FORMATS`.
      carry: input columns that go to the output beside the key.
      job_id: its name; None: one that follows from the model, the inputs and what is done with them, so that the same
        command again replaces its output.
      max_bad_fraction: share of dead letters among all rows beyond which the job fails.
      batch_rows: rows that are scored at once.
      reach: makes the way to the model, in the worker; None loads it there.
      way: what the summary says of the way; of another than `direct` it is in the job's name, too.
      model_copies: as `ScoringHandler` takes it.
      fingerprint: what tells the rows from others, in the job's name, where `inputs` are files for the moment.
    """

    model: PushedModel
    inputs: tuple[str, ...]
    output: str
    table: TableSource | None = None
    destination: Destination | None = None
    input_format: str | None = None
    output_format: str = "parquet"
    carry: tuple[str, ...] = ()
    job_id: str | None = None
    max_bad_fraction: float = 0.01
    batch_rows: int = 1024
    reach: Callable[[PushedModel], Model] | None = None
    way: Mapping[str, str] = field(default_factory=lambda: {"via": "direct"})
    model_copies: int | None = None
    fingerprint: str | None = None

    @cached_property
    def name(self) -> str:
        """The job's id."""
        if self.job_id is not None:
            return self.job_id
        what = [
            self.model.folder,
            self.model.digests,
            self.fingerprint or (self.table.name if self.table else self.inputs),
            self.input_format,
            self.output_format,
            self.carry,
            *([self.way] if self.reach else []),
        ]
        digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=dict).encode()).hexdigest()
        return f"{self.model.pipeline}-{self.model.version}-{digest[:10]}"


def run(job: BatchJob, options: Sequence[str] = (), execute: Execute | None = None) -> Summary:
    """Does the job and waits for it.

    Args:
      job: the job.
      options: of Beam; by default the local runner, in this process.
      execute: runs the pipeline instead of Beam with `options`.

    Returns:
      What was done; the output is complete under `job.output/job.name`.

    Raises:
      PredictionError: if an input, the model or the output is at fault, or too many rows are; what an earlier run of
        the job published then stays as it is.
    """
    files = [] if job.table else find_files(job.inputs, job.input_format)
    check_carried(job.model, job.carry, [name for name, _ in answer_fields(job.model)])
    if job.destination:
        job.destination.prepare(job.name, _schema(job))
    started = datetime.now(UTC)
    with outputs.job_folder(job.output, job.name) as folder:
        steps = partial(build, job=job, files=files, folder=folder, started=started)
        (execute or partial(_run_pipeline, options))(steps)
        summary = outputs.summarize(folder, outputs.read_records(folder), _facts(job, started))
        _check_bad_fraction(summary, job, folder)
        if job.destination:
            staged = [shard.path for shard in summary.shards if shard.kind == PREDICTIONS]
            job.destination.replace(job.name, _schema(job), staged, summary.predicted)
        outputs.publish(folder, summary)
    return summary


def _run_pipeline(options: Sequence[str], steps: Callable[[beam.Pipeline], None]) -> None:
    pipeline = beam.Pipeline(options=PipelineOptions([*(options or LOCAL_OPTIONS)]))
    steps(pipeline)
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:
        # Beam wraps what a step raised, on some runners as text only.
        if (cause := own_error(error)) is not None:
            raise plainly(cause) from error
        raise


def build(
    pipeline: beam.Pipeline, job: BatchJob, files: Sequence[InputFile], folder: JobFolder, started: datetime
) -> None:
    """Adds the job's steps to a pipeline; the output is staged, not published."""
    rows = _read(pipeline, job, files)
    handler = ScoringHandler(
        job.model, job.carry, reach=job.reach, model_copies=job.model_copies, predicted_at=started
    )
    scored = (
        rows.batches
        | "Score" >> RunInference(handler)
        | "Part" >> beam.ParDo(_Part()).with_outputs(DEAD_LETTERS, main=PREDICTIONS)
    )
    predictions = scored[PREDICTIONS] | "WritePredictions" >> beam.ParDo(
        WriteShards(folder, PREDICTIONS, RowsFormat(job.output_format, _schema(job)))
    )
    dead = (
        (*rows.unreadable, scored[DEAD_LETTERS])
        | "AllDeadLetters" >> beam.Flatten()
        | "WriteDeadLetters" >> beam.ParDo(WriteShards(folder, DEAD_LETTERS, DeadLettersFormat()))
    )
    _ = (predictions, dead, rows.sources) | "Records" >> WriteRecords(folder)


@dataclass(frozen=True)
class _Rows:
    """Collections of batches, of dead letters, and of what was read."""

    batches: beam.PCollection
    unreadable: tuple[beam.PCollection, ...]
    sources: beam.PCollection


def _read(pipeline: beam.Pipeline, job: BatchJob, files: Sequence[InputFile]) -> _Rows:
    if job.table is None:
        read = pipeline | "Read" >> ReadFiles(files, read_settings(job), _wanted(job))
        return _Rows(read["batches"], (read[UNREADABLE],), read[FILES])
    batches = pipeline | "Read" >> job.table.read()
    looked_at = batches | "LookAt" >> beam.Map(
        _look_at, job.table.name, needed_columns(job.model, job.carry), _wanted(job)
    )
    source = looked_at | "Source" >> beam.CombineGlobally(partial(_read_together, job.table.name))
    return _Rows(batches, (), source)


def _look_at(rows: Batch, name: str, needed: tuple[str, ...], wanted: Wanted) -> SourceRead:
    check_columns(rows, wanted)
    return SourceRead(name, len(rows), 0, absent_columns(rows, needed))


def _read_together(name: str, parts: Iterable[SourceRead]) -> SourceRead:
    """Parts of one table as one; all have the same columns."""
    rows, absent = 0, tuple[str, ...]()
    for part in parts:
        rows, absent = rows + part.rows, absent or part.absent
    return SourceRead(name, rows, 0, absent)


class _Part(beam.DoFn):
    """An outcome to its predictions and its dead letters."""

    def process(self, element: Outcome) -> Iterator[Any]:
        if element.predictions is not None and element.predictions.num_rows:
            yield element.predictions
        for letter in element.dead_letters:
            yield beam.pvalue.TaggedOutput(DEAD_LETTERS, letter)


def _schema(job: BatchJob) -> pa.Schema:
    return Encoder(job.model, Decoder(job.model, job.carry).carried_schema).schema


def read_settings(job: BatchJob) -> ReadSettings:
    """How the job's files are read: the columns that it needs."""
    return ReadSettings(
        rows=job.batch_rows,
        columns=needed_columns(job.model, job.carry),
        types=job.model.columns,
        null_values=("", *job.model.null_values),
    )


def needed_columns(model: PushedModel, carry: Sequence[str]) -> tuple[str, ...]:
    """The columns that a job with this model reads: features, key and what it carries, each once."""
    names = [*(feature.name for feature in model.features), *model.key, *carry]
    return tuple(dict.fromkeys(names))


def _wanted(job: BatchJob) -> Wanted:
    model = job.model
    required = tuple(feature.name for feature in model.features if feature.is_required)
    key = tuple(name for name in model.key if name in model.columns)
    carried = dict.fromkeys(name for name in (*model.key, *job.carry) if name not in (*required, *key))
    unlisted = tuple(name for name in carried if name not in model.columns)
    return Wanted(required, key, tuple(carried), unlisted)


def _facts(job: BatchJob, started: datetime) -> dict[str, Any]:
    return {
        "model": job.model.folder,
        "model_version": job.model.version,
        "run_id": job.model.run_id,
        "way": dict(job.way),
        "predicted_at": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 3),
    }


def _check_bad_fraction(summary: Summary, job: BatchJob, folder: JobFolder) -> None:
    most = job.max_bad_fraction * summary.rows_read
    if summary.dead_letters <= most:
        return
    commonest = max(summary.reasons.values(), key=lambda reason: reason.rows)
    failed = (
        f"{job.output}: nothing was published: {summary.dead_letters} of {summary.rows_read} rows got no prediction, "
        f"at most {job.max_bad_fraction:.3g} of them may (--max-bad-fraction); most often like "
        f"{commonest.example!r} ({commonest.rows} rows)"
    )
    advice = "mend the input, or raise the bound"
    try:
        kept = outputs.keep_dead_letters(folder, summary)
    except Exception as error:  # Every client of a store has errors of its own.
        raise PredictionError(f"{failed}; {advice} (they could not be kept: {error})") from error
    raise PredictionError(f"{failed}; all are in {kept}: {advice}")
