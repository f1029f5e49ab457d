"""`headworks table`: predictions made in advance, for a service that looks them up."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import library_logs
from cli.predict import pushed_by

if TYPE_CHECKING:
    from ingest.locations import Table
    from pipeline.config import Project


@click.command("table")
@click.argument("config", type=click.Path(path_type=Path), default=Path("pipeline.yaml"))
@click.option(
    "--sql",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with one SELECT that lists inputs of the model; it may read the tables of CONFIG.",
)
@click.option(
    "--requests",
    multiple=True,
    metavar="PATH",
    help="Files with a row a request, whose commonest inputs count.",
)
@click.option(
    "--columns", metavar="COLUMNS", help="With --requests: what makes an input, with commas between."
)
@click.option("--top", type=click.IntRange(min=1), help="With --requests: how many inputs.")
@click.option("--key", metavar="COLUMNS", default="", help="What names a row; by default all listed columns.")
@click.option("--model", metavar="FOLDER", help="A pushed version, or a serving folder; else that of CONFIG.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("predictions.sqlite"),
    show_default=True,
    help="SQLite file; what is there is replaced when the new one is complete.",
)
def table(
    config: Path,
    sql: Path | None,
    requests: tuple[str, ...],
    columns: str | None,
    top: int | None,
    key: str,
    model: str | None,
    output: Path,
) -> None:
    """Predict for inputs listed by a query, or requested most, into a table with a row a key.

    The SQLite file holds one table, `predictions`, with the key, the answer and the version of the model.
    """
    if bool(sql) == bool(requests) or bool(requests) != bool(columns and top):
        raise click.UsageError("give --sql FILE, or --requests PATH with --columns and --top")
    os.environ.update({"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", **os.environ})
    from beam_jobs import serving_table
    from beam_jobs.core import Direct
    from beam_jobs.listed_rows import listed
    from beam_jobs.pushed import PushedModel
    from ingest.locations import resolve_table
    from pipeline.config import load

    project = load(config, ()) if model is None or (sql and config.is_file()) else None
    pushed = PushedModel.read(model or pushed_by(_required(project)))
    names = _names(key)
    if sql is not None:
        text = sql.read_text(encoding="utf-8")
        chunks = listed(_tables(project), text, str(sql), null_values=pushed.null_values)
    else:
        asked = resolve_table("requests", requests, Path.cwd())
        chunks = serving_table.most_requested(
            asked, _names(columns or ""), top or 0, null_values=pushed.null_values
        )
    with library_logs.to_file(output.with_name(f"{output.name}.log")):
        way = Direct(pushed.load())
        score = serving_table.scored_by(pushed, way, names, str(sql or "the requests"), datetime.now(UTC))
        written = serving_table.write(output, chunks, score, names)
    click.echo(f"model: version {pushed.version} of {pushed.pipeline} (run {pushed.run_id})")
    click.echo(
        f"{written.path}: {written.rows:,} rows by {', '.join(written.key)}, {written.size_bytes:,} bytes"
    )


def _required(project: Project | None) -> Project:
    assert project is not None  # Loaded where no model is named.
    return project


def _tables(project: Project | None) -> tuple[Table, ...]:
    from ingest.locations import has_span, resolve_table
    from pipeline.config import QuerySource

    if project is None or not isinstance(project.config.data.source, QuerySource):
        return ()
    return tuple(
        resolve_table(name, [location], project.file.parent)
        for name, location in project.config.data.source.tables.items()
        if not has_span(location)
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
