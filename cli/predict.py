"""`headworks predict`: score files with a pushed model."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import library_logs

if TYPE_CHECKING:
    from beam_jobs.batch import BatchJob
    from beam_jobs.core import Model
    from beam_jobs.outputs import Summary
    from beam_jobs.pushed import PushedModel

_OUTPUT = "predictions"
_FORMATS = ("csv", "jsonl", "parquet", "tfrecord")


@click.command("predict")
@click.argument("config", type=click.Path(path_type=Path), default=Path("pipeline.yaml"))
@click.option(
    "--input", "inputs", multiple=True, metavar="PATH", help="File, folder or glob; may be repeated."
)
@click.option(
    "--query", is_flag=True, help="Instead of --input: the rows that the query of CONFIG gives now."
)
@click.option(
    "--output",
    metavar="FOLDER",
    help="Gets a folder for the job; else predictions/ in CONFIG's output folder, or here with --model.",
)
@click.option("--model", metavar="FOLDER", help="A pushed version, or a serving folder; else that of CONFIG.")
@click.option(
    "--format", "input_format", type=click.Choice(_FORMATS), help="Of the input; else its suffix says."
)
@click.option("--to", "output_format", type=click.Choice(_FORMATS), default="parquet", show_default=True)
@click.option(
    "--carry", metavar="COLUMNS", default="", help="Input columns to pass through, with commas between."
)
@click.option("--job", "job_id", help="Name of the job; else one that follows from model and input.")
@click.option(
    "--max-bad-fraction",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Share of dead letters beyond which the job fails.",
)
@click.option("--batch-rows", type=click.IntRange(min=1), default=1024, show_default=True)
@click.option("--via", type=click.Choice(("direct", "endpoint")), default="direct", show_default=True)
@click.option("--endpoint", metavar="URL", help="With --via endpoint: where predictions are asked of.")
@click.option(
    "--beam", "beam_options", multiple=True, metavar="OPTION", help="For Beam, e.g. --beam=--runner=..."
)
def predict(
    config: Path,
    inputs: tuple[str, ...],
    query: bool,
    output: str | None,
    model: str | None,
    input_format: str | None,
    output_format: str,
    carry: str,
    job_id: str | None,
    max_bad_fraction: float,
    batch_rows: int,
    via: str,
    endpoint: str | None,
    beam_options: tuple[str, ...],
) -> None:
    """Score the rows of files with the newest model that CONFIG pushed, or with --model.

    The files hold the columns that the pipeline's query gives, by name. Predictions and dead letters appear together
    under OUTPUT/JOB when all rows are done; the same job again replaces them. Exits 1 if too many rows are bad.
    """
    if (via == "endpoint") != bool(endpoint):
        raise click.UsageError("--via endpoint and --endpoint URL go together")
    if bool(inputs) == query:
        raise click.UsageError("give --input PATH, or --query")
    # Both are read when TensorFlow is loaded.
    os.environ.update({"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", **os.environ})
    from beam_jobs import batch
    from beam_jobs.pushed import PushedModel
    from pipeline.config import load

    pushed = PushedModel.read(model or str(load(config, ()).serving_folder))
    output = output or (_OUTPUT if model else str(load(config, ()).root / _OUTPUT))
    with contextlib.ExitStack() as stack:
        if query:
            rows = stack.enter_context(queried(config))
            inputs, input_format = (str(rows.file),), "parquet"
            job_id = job_id or f"{pushed.pipeline}-{pushed.version}-{rows.fingerprint[:10]}"
        job = batch.BatchJob(
            model=pushed,
            inputs=inputs,
            output=output,
            input_format=input_format,
            output_format=output_format,
            carry=tuple(name.strip() for name in carry.split(",") if name.strip()),
            job_id=job_id,
            max_bad_fraction=max_bad_fraction,
            batch_rows=batch_rows,
            reach=_endpoint(endpoint) if endpoint else None,
        )
        stack.enter_context(library_logs.to_file(log_path(output, job.name)))
        summary = batch.run(job, beam_options)
    for line in lines(job, summary):
        click.echo(line)


@dataclass(frozen=True)
class Queried:
    """The rows of a query, in a file, and what tells its data and SQL from others."""

    file: Path
    fingerprint: str


@contextmanager
def queried(config: Path) -> Iterator[Queried]:
    """The rows that a configuration's query gives now, for as long as the block lasts.

    Raises:
      click.UsageError: if its rows do not come from a query.
    """
    import pyarrow.parquet as pq

    from beam_jobs.serving_table import listed
    from pipeline import data_plan
    from pipeline.config import QuerySource, load

    project = load(config, ())
    if not isinstance(project.config.data.source, QuerySource):
        raise click.UsageError(f"--query: {config} reads its rows without a query; name them with --input")
    plan = data_plan.plan(project)
    chunks = listed(plan.tables, plan.sql, plan.sql_source, null_values=plan.null_values, params=plan.params)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{project.config.name}.parquet"
        first = next(chunks)
        with pq.ParquetWriter(file, first.schema) as writer:
            for chunk in itertools.chain([first], chunks):
                writer.write_table(chunk)
        yield Queried(file, data_plan.fingerprint(project))


def log_path(output: str, job: str) -> Path:
    """Where the log of a job is: beside its output, or in the folder for temporary files where that is in a store."""
    folder = Path(tempfile.gettempdir()) if "://" in output else Path(output)
    return folder / f"{job}.log"


def lines(job: BatchJob, summary: Summary) -> Iterator[str]:
    """What the command says of a job."""
    seconds = float(summary.facts["seconds"])
    yield f"model: version {job.model.version} of {job.model.pipeline} (run {job.model.run_id})"
    yield f"rows: {summary.rows_read:,} read, {summary.predicted:,} predicted, {summary.dead_letters:,} dead letters"
    for reason in sorted(summary.reasons.values(), key=lambda reason: -reason.rows):
        yield f"  {reason.rows:,}: such as {reason.example}"
    yield f"time: {seconds:.1f} s, {summary.rows_read / max(seconds, 1e-9):,.0f} rows/s with the start"
    yield f"output: {job.output}/{job.name}"


def _endpoint(url: str) -> Callable[[PushedModel], Model]:
    from beam_jobs.endpoint import EndpointSettings

    settings = EndpointSettings(url=url)
    return partial(_connect, settings)


def _connect(settings: Any, pushed: PushedModel) -> Model:
    found: Model = settings.connect(pushed)
    return found
