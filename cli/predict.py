"""`headworks predict`: score files with a pushed model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
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

_FORMATS = ("csv", "jsonl", "parquet", "tfrecord")


@click.command("predict")
@click.argument("config", type=click.Path(path_type=Path), default=Path("pipeline.yaml"))
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="PATH",
    help="File, folder or glob; may be repeated.",
)
@click.option(
    "--output", default="predictions", show_default=True, help="Folder that gets a folder for the job."
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
    output: str,
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
    # Both are read when TensorFlow is loaded.
    os.environ.update({"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", **os.environ})
    from beam_jobs import batch
    from beam_jobs.pushed import PushedModel

    pushed = PushedModel.read(model or _serving_folder(config))
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
    with library_logs.to_file(log_path(output, job.name)):
        summary = batch.run(job, beam_options)
    for line in lines(job, summary):
        click.echo(line)


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


def _serving_folder(config: Path) -> str:
    from pipeline.config import load

    return str(load(config, ()).serving_folder)


def _endpoint(url: str) -> Callable[[PushedModel], Model]:
    from beam_jobs.endpoint import EndpointSettings

    settings = EndpointSettings(url=url)
    return partial(_connect, settings)


def _connect(settings: Any, pushed: PushedModel) -> Model:
    found: Model = settings.connect(pushed)
    return found
