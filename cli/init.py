"""`headworks init`: a schema and a configuration for a table nobody here has seen."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cli.guessing import Guesses
    from cli.table_profile import ColumnProfile, Giveaway, Unreadable

TABLE = "data"
NULL_VALUES = ("", "NA", "N/A", "n/a", "NULL", "null", "NaN", "nan", "None", "?")
CONFIG_FILE, SCHEMA_FILE, SQL_FILE = "pipeline.yaml", "schema.pbtxt", "query.sql"
SCHEMA_HEADER = "# Written by `headworks init` from the data; from now on it is yours to curate.\n"


@click.command("init")
@click.option("--data", required=True, metavar="FILE_OR_DIR", help="CSV or Parquet, also .gz and .zip.")
@click.option("--label", required=True, metavar="COLUMN", help="Column to predict.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path(), help="Where to write; here by default."
)
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def init(data: str, label: str, folder: Path, force: bool) -> None:
    """Write pipeline.yaml and schema.pbtxt for a table, and say what was guessed."""
    from cli.check import summary
    from cli.guessing import guess
    from ingest.errors import DataError
    from pipeline.check import check
    from pipeline.config import load

    place = data if data.startswith("package://") else str(Path(data).resolve())
    profiles, unreadable, giveaways = _look(place, label)
    guesses = guess(TABLE, profiles, unreadable, label, giveaways=giveaways)
    location, name = _from(place, folder), _slug(folder.resolve().name)
    files = render(location, profiles, guesses, name)
    taken = [str(folder / name) for name in files if (folder / name).exists()]
    if taken and not force:
        raise click.ClickException(
            f"{', '.join(taken)}: already there; give --force to overwrite, or another --folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / CONFIG_FILE
    _write_all(folder, files)
    no_time = ""
    try:
        report = check(load(config))
    except DataError as error:
        if guesses.time is None:
            raise DataError(
                f"{error}\nmend it in {config} or the data, then: headworks check {config}"
            ) from error
        no_time = f"as a split by time, on {guesses.time.column}, will not do: {error}"
        guesses = guess(TABLE, profiles, unreadable, label, allow_time=False, giveaways=giveaways)
        files = render(location, profiles, guesses, name)
        _write_all(folder, files)
        report = check(load(config))
    for line in (*_told(profiles, guesses, no_time), *_read_as_missing(place)):
        click.echo(line)
    click.echo(f"wrote {', '.join(str(folder / name) for name in files)}")
    for line in summary(load(config), report):
        click.echo(line)
    click.echo(f"next: headworks run {config}")


def render(
    location: str, profiles: tuple[ColumnProfile, ...], guesses: Guesses, name: str
) -> Mapping[str, str]:
    """Return text by file name."""
    from google.protobuf import text_format
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from cli.guessing import schema_of

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    rows = profiles[0].rows
    config = environment.get_template("pipeline.yaml.j2").render(
        name=name,
        location=location,
        sql=SQL_FILE if guesses.sql else None,
        null_values=list(NULL_VALUES),
        time_column=guesses.time.column if guesses.time else None,
        key_columns=list(guesses.key_columns),
        label=guesses.label,
        excluded=guesses.excluded,
        batch_size=1024 if rows >= 200_000 else 256 if rows >= 5_000 else 32,
        min_rows=max(1, min(50, rows // 50)),
        bound=guesses.bound,
        # Among few rows, chance hides a lead over a single good column.
        must_beat=["majority", "one_rule"] if rows >= 20_000 else ["majority"],
        slices=[list(columns) for columns in guesses.slices],
    )
    schema = SCHEMA_HEADER + text_format.MessageToString(schema_of(profiles, guesses), as_utf8=True)
    sql = {SQL_FILE: guesses.sql} if guesses.sql else {}
    return {CONFIG_FILE: config, SCHEMA_FILE: schema, **sql}


def _from(place: str, folder: Path) -> str:
    """Return the data's place as the configuration says it: relative where it lies below, so both can move."""
    below = Path(place)
    return str(below.relative_to(folder.resolve())) if below.is_relative_to(folder.resolve()) else place


def _read_as_missing(location: str) -> list[str]:
    """Return, one column a line, the words in CSV files that are taken for a missing value."""
    from ingest.locations import resolve_table
    from ingest.quoting import literal, quoted
    from ingest.tables import connect

    table = resolve_table(TABLE, [location], Path())
    words = ", ".join(literal(word) for word in NULL_VALUES if word)
    lines = []
    if all(path.suffix.lower() == ".parquet" for path in table.paths):  # null_values are for CSV
        return []
    with connect([table], ("",)) as database:
        texts = [column for column in database.tables[0].columns if column.type.startswith("VARCHAR")]
        for column in texts:
            name = quoted(column.name)
            found = database.connection.execute(
                f"SELECT {name}, count(*) FROM {quoted(TABLE)} WHERE {name} IN ({words}) GROUP BY 1 ORDER BY 1"
            ).fetchall()
            lines += [
                f"note     {column.name}: {word!r} in {rows:,} rows is read as missing (data.source.null_values)"
                for word, rows in found
            ]
    return lines


def _look(
    location: str, label: str
) -> tuple[tuple[ColumnProfile, ...], tuple[Unreadable, ...], tuple[Giveaway, ...]]:
    from cli.guessing import guess_label, label_profile
    from cli.table_profile import giveaways, profile, readable_columns
    from ingest.locations import resolve_table
    from ingest.tables import connect

    table = resolve_table(TABLE, [location], Path())
    with connect([table], NULL_VALUES) as database:
        columns, unreadable = readable_columns(database, TABLE)
        profiles = profile(database, TABLE, columns)
        target = label_profile(profiles, label)
        telling = giveaways(
            database, TABLE, profiles, target, is_regression=guess_label(target).kind == "regression"
        )
        return profiles, unreadable, telling


def _told(profiles: tuple[ColumnProfile, ...], guesses: Guesses, no_time: str) -> list[str]:
    """Return what was guessed and why, one guess a line."""
    from cli.guessing import why_no_time

    label, rows = guesses.label, profiles[0].rows
    lines = [
        f"{rows:,} rows, {len(profiles)} columns",
        f"label    {label.name}: {label.kind}, as it is {label.reason}"
        + (
            f"; {label.classes[1]!r} is the positive class"
            if label.kind == "binary" and label.classes
            else ""
        ),
    ]
    if guesses.time:
        lines.append(
            f"split    by time, on {guesses.time.column}: {guesses.time.reason}; the latest 20 % test"
        )
    else:
        keys = ", ".join(guesses.key_columns) if len(guesses.key_columns) < 4 else "all that a row says"
        lines.append(f"split    by hash of {keys}, {no_time or why_no_time(profiles, label.name)}")
    lines += [f"excluded {guess.column}: {guess.reason}" for guess in guesses.excluded]
    lines += [f"dropped  {guess.column}: {guess.reason}" for guess in guesses.dropped]
    missing = next(profile.missing for profile in profiles if profile.name == label.name)
    if missing:
        lines.append(f"dropped  {missing:,} rows without a label")
    if next(profile.column.sql_type for profile in profiles if profile.name == label.name) == "BOOLEAN":
        lines.append(f"note     {label.name}: yes or true is class 1, no or false class 0")
    left_out = {guess.column for guess in (*guesses.excluded, *guesses.dropped)}
    lines += [
        f"note     {profile.name}: read as a number, as every value is one with a currency, percent or comma"
        for profile in profiles
        if profile.are_amounts and profile.name not in {*left_out, label.name}
    ]
    return lines


def _slug(text: str) -> str:
    """Return a pipeline name made from a folder's."""
    name = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63]
    return name if name and name[0].isalpha() else f"pipeline-{name}".strip("-")


def _write_all(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        _write(folder / name, text)


def _write(path: Path, text: str) -> None:
    """Write the file so that a reader, or a crash, sees either the old one or the new one, whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
