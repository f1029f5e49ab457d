"""Scored events landed as spans of data, one a window of event time, for the pipeline to train on.

A location with `{SPAN}` (ingest.locations) says where: `events/{SPAN}` for `data.source.folder`, or the same as the
folder of a table of a query. A window's span is its number since 1970, so it is the same whoever computes it; each is a
folder with one Parquet file, complete as soon as it is seen. Rows that come late are added to their span's file, which
is replaced in one step; a row that is there already, by its prediction id, is not added.

Until the watermark has passed a window, its rows are state of the job; on the local runner they are in memory, and
their messages are not acknowledged, so that a killed job has them again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.transforms.window import TimestampedValue

from beam_jobs.rows import PredictionError
from beam_jobs.scored import Confirm, Scored, ScoredRow
from beam_jobs.values import CONVERTERS, NOT_OF_THE_TYPE
from beam_jobs.windows import Windows, shares
from ingest.flushing import flush
from ingest.locations import has_span, with_span
from schemas.features import DType

STEP = "spans"
FILE = "events.parquet"
_TYPES = {DType.FLOAT: pa.float64(), DType.INT: pa.int64(), DType.BYTES: pa.string()}
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class Landing:
    """Where scored events go.

    Attributes:
      location: folder of a span, with `{SPAN}` in its last part.
      windows: the spans of time.
    """

    location: str
    windows: Windows

    def __post_init__(self) -> None:
        if "://" in self.location:
            raise PredictionError(f"{self.location}: spans are landed in folders of this machine only")
        if not has_span(Path(self.location).name):
            raise PredictionError(
                f"{self.location}: want a folder for each span, whose name has {{SPAN}} in it, such as events/{{SPAN}}"
            )

    def folder(self, window_start: float) -> Path:
        """The folder of a window's span."""
        return Path(with_span(self.location, round(window_start / self.windows.size_s)))


@dataclass(frozen=True)
class Landed:
    """Rows on their way to a span.

    Attributes:
      table: the rows; None where the messages gave none.
      messages: ids of their messages, where they have to be acknowledged.
    """

    table: pa.Table | None
    messages: tuple[str, ...] = ()


def gathered(parts: Iterable[Landed]) -> Landed:
    """The rows of all parts together."""
    parts = list(parts)
    tables = [part.table for part in parts if part.table is not None]
    return Landed(
        pa.concat_tables(tables, promote_options="permissive") if tables else None,
        tuple(name for part in parts for name in part.messages),
    )


class LandAsSpans(beam.PTransform):
    """Written batches to a folder for each span."""

    def __init__(self, landing: Landing, confirm: Confirm | None) -> None:
        super().__init__()
        self._landing = landing
        self._confirm = confirm

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return (
            batches
            | "Split" >> beam.FlatMap(split, self._landing.windows, keep_ids=self._confirm is not None)
            | "Window" >> self._landing.windows.into()
            | "Gather" >> beam.CombinePerKey(gathered)
            | "Land" >> beam.ParDo(_Land(self._landing, self._confirm))
        )


def split(batch: Scored, windows: Windows, *, keep_ids: bool) -> Iterator[TimestampedValue]:
    """A batch's rows by window, each at the event time of the oldest message in it."""
    for share in shares(batch, windows):
        table = to_table(rows, batch.columns) if (rows := share.rows) else None
        # One key: a window's rows make one file.
        yield TimestampedValue(("", Landed(table, share.ids if keep_ids else ())), share.time)


def to_table(rows: Sequence[ScoredRow], columns: Mapping[str, DType]) -> pa.Table:
    """Rows as the columns of the curated schema, and what the model said of them.

    The model has looked at its features; a value of another column that is not of the column's type is left out.
    """
    inputs = {
        name: pa.array([_typed(row.inputs.get(name), dtype) for row in rows], _TYPES[dtype])
        for name, dtype in columns.items()
    }
    said = pa.Table.from_pylist([dict(row.output) for row in rows])
    times = pa.array([row.time for row in rows], pa.timestamp("us", tz="UTC"))
    answers = {name: said[name] for name in said.column_names if name not in inputs}
    return pa.table({**inputs, **answers, "event_time": times})


def _typed(value: Any, dtype: DType) -> Any:
    try:
        return None if value is None else CONVERTERS[dtype](value)
    except NOT_OF_THE_TYPE:
        return None


class _Land(beam.DoFn):
    def __init__(self, landing: Landing, confirm: Confirm | None) -> None:
        self._landing = landing
        self._confirm = confirm

    def process(self, element: tuple[str, Landed], window: Any = beam.DoFn.WindowParam) -> None:
        _, landed = element
        if landed.table is not None:
            land(landed.table, self._landing.folder(float(window.start)))
        if self._confirm:
            self._confirm(landed.messages, STEP)


def land(rows: pa.Table, folder: Path) -> None:
    """Adds rows to a span, which is seen with all of them or as it was.

    Raises:
      PredictionError: if the span cannot be written.
    """
    file = folder / FILE
    try:
        if not folder.is_dir():
            _make(_unique(rows), folder)
            return
        there = pq.read_table(file)
        new = _unique(
            rows.filter(pc.invert(pc.is_in(rows["prediction_id"], there["prediction_id"].combine_chunks())))
        )
        if new.num_rows:
            _replace(pa.concat_tables([there, new], promote_options="permissive"), file)
    except (OSError, pa.ArrowException) as error:
        raise PredictionError(f"{file}: the span cannot be written: {error}") from error


def _unique(rows: pa.Table) -> pa.Table:
    """The first row of each prediction id."""
    ids = rows["prediction_id"].to_pylist()
    first = {name: number for number, name in reversed(list(enumerate(ids)))}
    return rows.take(pa.array(sorted(first.values()), pa.int64()))


def _make(rows: pa.Table, folder: Path) -> None:
    """A new folder appears with its file in it; a partial one has a name that no location of spans finds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f"{_PARTIAL}{folder.name}-*"):
        shutil.rmtree(leftover)
    partial = Path(tempfile.mkdtemp(prefix=f"{_PARTIAL}{folder.name}-", dir=folder.parent))
    _write(rows, partial / FILE)
    partial.chmod(0o755)
    partial.rename(folder)
    flush(folder.parent)


def _replace(rows: pa.Table, file: Path) -> None:
    # Not a name that ends as a table's: the pipeline reads whatever does.
    partial = file.with_name(f"{_PARTIAL}{file.name}.tmp")
    _write(rows, partial)
    partial.replace(file)
    flush(file.parent)


def _write(rows: pa.Table, file: Path) -> None:
    with file.open("wb") as output:
        pq.write_table(rows, output)
        output.flush()
        os.fsync(output.fileno())
