"""`headworks predict`: score files with a pushed model."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from cli import dataflow_file as settings_file
from cli import library_logs
from cli.carried import carry_option

if TYPE_CHECKING:
    from beam_jobs.batch import BatchJob, Destination, Execute, TableSource
    from beam_jobs.core import Model
    from beam_jobs.outputs import Summary
    from beam_jobs.pushed import PushedModel
    from cloud.dataflow import DataflowSettings
    from pipeline.config import Project

_OUTPUT = "predictions"
_BIGQUERY = "bigquery://"
_WAYS = ("direct", "endpoint", "vertex-batch", "device")
_FORMATS = ("csv", "jsonl", "parquet", "tfrecord")
_OUTPUT_FORMATS = (*_FORMATS, "csv.gz", "jsonl.gz", "tfrecord.gz")
_SHOWN_NOTES = 3
_TYPES = {"FLOAT": "number", "INT": "whole number", "BYTES": "text"}


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
    "--columns", is_flag=True, help="Only say which columns the model takes: name, type, whether required."
)
@click.option(
    "--format", "input_format", type=click.Choice(_FORMATS), help="Of the input; else its suffix says."
)
@click.option(
    "--to", "output_format", type=click.Choice(_OUTPUT_FORMATS), default="parquet", show_default=True
)
@carry_option
@click.option("--job", "job_id", help="Name of the job; else one that follows from model and input.")
@click.option(
    "--max-bad-fraction",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Share of dead letters beyond which the job fails.",
)
@click.option(
    "--to-table", metavar="PROJECT.DATASET.TABLE", help="A BigQuery table that gets the predictions, too."
)
@click.option("--batch-rows", type=click.IntRange(min=1), default=1024, show_default=True)
@click.option(
    "--model-copies",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most so many models in the memory of a machine, for all its processes. The price: rows and predictions "
    "then travel between processes. By default each process has its own.",
)
@click.option("--via", type=click.Choice(_WAYS), default="direct", show_default=True)
@click.option("--endpoint", metavar="URL", help="With --via endpoint: where predictions are asked of.")
@click.option(
    "--vertex-model", metavar="RESOURCE", help="With --via vertex-batch: the model in Vertex AI's registry."
)
@click.option(
    "--staging", metavar="gs://...", help="With --via vertex-batch: folder for instances and answers."
)
@click.option(
    "--device-model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --via device: the .tflite of the version.",
)
@click.option("--service-account", metavar="ADDRESS", help="With --via vertex-batch: that the job runs as.")
@click.option(
    "--beam", "beam_options", multiple=True, metavar="OPTION", help="For Beam, e.g. --beam=--runner=..."
)
@settings_file.dataflow_option
def predict(
    config: Path,
    inputs: tuple[str, ...],
    query: bool,
    output: str | None,
    model: str | None,
    columns: bool,
    input_format: str | None,
    output_format: str,
    carry: tuple[str, ...],
    job_id: str | None,
    max_bad_fraction: float,
    to_table: str | None,
    batch_rows: int,
    model_copies: int | None,
    via: str,
    endpoint: str | None,
    vertex_model: str | None,
    staging: str | None,
    device_model: Path | None,
    service_account: str | None,
    beam_options: tuple[str, ...],
    dataflow_file: Path | None,
) -> None:
    """Score the rows of files with the newest model that CONFIG pushed, or with --model.

    The files hold the columns that the pipeline's query gives, by name. Predictions and dead letters appear together
    under OUTPUT/JOB when all rows are done; the same job again replaces them. Exits 1 if too many rows are bad.
    """
    if (via == "endpoint") != bool(endpoint):
        raise click.UsageError("--via endpoint and --endpoint URL go together")
    if (via == "vertex-batch") != bool(vertex_model and staging):
        raise click.UsageError(
            "--via vertex-batch, --vertex-model RESOURCE and --staging gs://... go together"
        )
    if (via == "device") != bool(device_model):
        raise click.UsageError("--via device and --device-model FILE go together")
    if to_table and output_format != "parquet":
        raise click.UsageError("--to-table wants --to parquet")
    if model_copies and via != "direct":
        raise click.UsageError("--model-copies goes with --via direct")
    if columns:
        if inputs or query:
            raise click.UsageError("--columns scores nothing: it goes without --input and --query")
        _show_columns(config, model)
        return
    if bool(inputs) == query:
        raise click.UsageError("give --input PATH, or --query")
    settings = settings_file.read(dataflow_file) if dataflow_file else None
    if settings and (query or beam_options or via in ("vertex-batch", "device")):
        raise click.UsageError(
            "--dataflow goes neither with --query nor with --beam nor with --via vertex-batch or device"
        )
    if query and not config.is_file():
        raise click.UsageError(
            f"--query scores the rows of a configuration's query, and there is no {config}: name the configuration, or "
            "score files by --input PATH"
        )
    # Both are read when TensorFlow is loaded.
    os.environ.update({"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", **os.environ})
    from beam_jobs import batch
    from beam_jobs.outputs import check_job_id
    from beam_jobs.pushed import PushedModel
    from pipeline.config import load

    if job_id is not None:
        check_job_id(job_id)
    output = output or (_OUTPUT if model else str(load(config, ()).root / _OUTPUT))
    model = model or pushed_by(load(config, ()))
    with contextlib.ExitStack() as stack:
        if settings:
            _require_reachable(model, inputs, output)
            stack.enter_context(_ready(settings, output))
        pushed = PushedModel.read(model)
        fingerprint = None
        if query:
            rows = stack.enter_context(queried(config))
            inputs, input_format, fingerprint = (str(rows.file),), "parquet", rows.fingerprint
        job = batch.BatchJob(
            model=pushed,
            inputs=inputs,
            output=output,
            table=_table(inputs, batch_rows, batch.needed_columns(pushed, carry)),
            destination=_destination(to_table, pushed) if to_table else None,
            input_format=input_format,
            output_format=output_format,
            carry=carry,
            job_id=job_id,
            max_bad_fraction=max_bad_fraction,
            batch_rows=batch_rows,
            **_way(via, endpoint, device_model, pushed),
            model_copies=model_copies,
            fingerprint=fingerprint,
        )
        stack.enter_context(library_logs.to_file(log_path(output, job.name)))
        if vertex_model and staging:
            summary = _score_at_vertex(job, vertex_model, staging, service_account, beam_options)
        else:
            summary = batch.run(job, beam_options, _on_dataflow(settings, job.name) if settings else None)
    for line in lines(job, summary):
        click.echo(line)


class _Way(TypedDict, total=False):
    """How workers reach the model, as `BatchJob` takes it."""

    reach: Callable[[PushedModel], Model]
    way: Mapping[str, str]


def _way(via: str, endpoint: str | None, device_model: Path | None, pushed: PushedModel) -> _Way:
    """The way to the model, where workers do not load the pushed one; a device model is tried here first."""
    if endpoint:
        return {"reach": _endpoint(endpoint), "way": {"via": via, "endpoint": endpoint}}
    if device_model is None:
        return {"way": {"via": via}}
    from beam_jobs.device import DeviceWay

    variant = DeviceWay(pushed, str(device_model)).variant
    digest = hashlib.sha256(device_model.read_bytes()).hexdigest()
    return {
        "reach": partial(DeviceWay, path=str(device_model.resolve())),
        "way": {"via": via, "variant": variant, "file": str(device_model), "sha256": digest},
    }


def pushed_by(project: Project) -> str:
    """The serving folder of a configuration.

    Raises:
      PredictionError: if it is not there and would be elsewhere, had the command been given elsewhere.
    """
    from beam_jobs.rows import PredictionError

    folder = project.serving_folder
    if not folder.exists() and not (project.config.output or project.config.push.folder):
        raise PredictionError(
            f"{folder}: no pushed model here; {project.file} does not say `output`, so that it is looked for below the "
            "current folder: go to where the pipeline was run, or name the model by --model"
        )
    return str(folder)


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
      DataError: if it gives none.
    """
    import pyarrow.parquet as pq

    from beam_jobs.listed_rows import listed
    from ingest.errors import DataError
    from pipeline import data_plan
    from pipeline.config import QuerySource, load

    project = load(config, ())
    if not isinstance(project.config.data.source, QuerySource):
        raise click.UsageError(f"--query: {config} reads its rows without a query; name them with --input")
    plan = data_plan.plan(project)
    chunks = listed(plan.tables, plan.sql, plan.sql_source, null_values=plan.null_values, params=plan.params)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{project.config.name}.parquet"
        first = next(chunks, None)
        if first is None:
            raise DataError(
                f"{plan.sql_source}: the query gives no rows now; look at its conditions and tables"
            )
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
    yield from _notes(summary)
    yield f"time: {seconds:.1f} s, {summary.rows_read / max(seconds, 1e-9):,.0f} rows/s with the start"
    yield f"output: {_shown(job.output)}/{job.name}"


def _notes(summary: Summary) -> Iterator[str]:
    """Columns that were to be read and are not there, which is one way to misspell a name."""
    absent: dict[str, list[str]] = {}
    for source in summary.sources:
        for name in source.absent:
            absent.setdefault(name, []).append(source.source)
    for source in summary.sources:
        if not source.rows:
            yield f"note: {source.source} has no rows"
    for name, sources in absent.items():
        more = f" and {len(sources) - _SHOWN_NOTES} more" if len(sources) > _SHOWN_NOTES else ""
        yield f"note: {name} is absent from {', '.join(sources[:_SHOWN_NOTES])}{more}, so it counts as missing"


def _show_columns(config: Path, model: str | None) -> None:
    """Prints what each column of the model has to be, for who makes the files."""
    from rich.table import Table

    from beam_jobs.pushed import PushedModel
    from cli.tables import display
    from pipeline.config import load

    pushed = PushedModel.read(model or pushed_by(load(config, ())))
    table = Table(box=None, pad_edge=False)
    for heading in ("column", "type", "", "no value in CSV"):
        table.add_column(heading)
    missing = " or ".join(dict.fromkeys(text or "nothing" for text in ("", *pushed.null_values)))
    for feature in pushed.features:
        demand = "required" if feature.is_required else "optional"
        table.add_row(
            feature.name, _TYPES[feature.dtype.name], demand, "" if feature.is_required else missing
        )
    for name in pushed.key:
        if name not in {feature.name for feature in pushed.features}:
            kind = pushed.columns.get(name)
            table.add_row(name, _TYPES[kind.name] if kind else "any", "key", "")
    click.echo(f"model: version {pushed.version} of {pushed.pipeline} (run {pushed.run_id})")
    display(table)
    click.echo("In JSON null or no entry, in Parquet NULL is no value; NaN and Infinity are none either.")


def _shown(folder: str) -> str:
    """The folder as a person in the current one would type it."""
    path = Path(folder)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else folder


def _table(inputs: tuple[str, ...], rows: int, columns: tuple[str, ...]) -> TableSource | None:
    if not any(name.startswith(_BIGQUERY) for name in inputs):
        return None
    if len(inputs) > 1:
        raise click.UsageError(f"--input {_BIGQUERY}...: one table, and nothing beside it")
    from cloud.prediction_table import source

    return source(inputs[0], rows, columns)


def _destination(name: str, model: PushedModel) -> Destination:
    from cloud.bigquery import Connection, TableName
    from cloud.prediction_table import PredictionTable

    table = TableName.parse(name)
    return PredictionTable(table, Connection(table.project), model.key)


def _require_reachable(model: str, inputs: Sequence[str], output: str) -> None:
    settings_file.require_in_store("--model", model)
    for name in inputs:
        if not name.startswith(_BIGQUERY):
            settings_file.require_in_store("--input", name)
    settings_file.require_in_store("--output", output)


def _ready(settings: DataflowSettings, output: str) -> AbstractContextManager[None]:
    """Sees that Google's services can be used; in the block their errors are told in one sentence."""
    from cloud import dataflow

    dataflow.check_staging(settings)
    return dataflow.explained(f"{output}: the job was not done")


def _on_dataflow(settings: DataflowSettings, job_id: str) -> Execute:
    from cloud import dataflow

    return partial(
        dataflow.run, settings=settings, job_id=job_id, told=lambda line: click.echo(line, err=True)
    )


def _score_at_vertex(
    job: BatchJob, model: str, staging: str, service_account: str | None, options: tuple[str, ...]
) -> Summary:
    from cloud.vertex_scoring import VertexBatch, score

    way = VertexBatch(model, staging, service_account=service_account)
    return score(job, way, lambda line: click.echo(line, err=True), options)


def _endpoint(url: str) -> Callable[[PushedModel], Model]:
    from beam_jobs.endpoint import EndpointSettings

    if "/endpoints/" not in url:
        return EndpointSettings(url=url).connect
    from cloud.bearer_token import BearerToken

    return EndpointSettings(url=url, signature=None, token=BearerToken()).connect
