"""Everything that decides which examples are written, as one value, with a fingerprint of its content.

The fingerprint covers what the files hold, not where they lie, and what the SQL says, not how it is laid
out. A cache may trust it: equal fingerprints give byte-identical records.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ingest.errors import DataError
from ingest.locations import Spans, Table
from ingest.query import normalized
from ingest.splits import ColumnSplit, HashSplit, Split, TimeBoundaries, TimeFractions

_SPLIT_KINDS = {kind.__name__: kind for kind in (TimeBoundaries, TimeFractions, ColumnSplit, HashSplit)}


@dataclass(frozen=True)
class Plan:
    """From tables to examples.

    Attributes:
      tables: what the SQL may read.
      sql: one SELECT statement; `$first_span` and `$last_span` stand for the span range.
      sql_source: what to call the SQL in errors, such as its file.
      split: which row goes where.
      null_values: texts that mean "no value" in CSV files.
      spans: the span range, if the data comes in spans.
      floats: columns that are FLOAT even where the data has whole numbers only.
    """

    tables: tuple[Table, ...]
    sql: str
    sql_source: str
    split: Split
    null_values: tuple[str, ...] = field(default=("",))
    spans: Spans | None = None
    floats: tuple[str, ...] = ()

    @property
    def params(self) -> dict[str, int]:
        """Values of the SQL's parameters."""
        return {} if self.spans is None else {"first_span": self.spans.first, "last_span": self.spans.last}


def fingerprint(plan: Plan) -> str:
    """SHA-256 in hexadecimal over the plan and the content of its files; reads every file once.

    Raises:
      DataError: if a file cannot be read.
    """
    content = {
        "tables": [[table.name, [file_digest(path) for path in table.paths]] for table in plan.tables],
        "sql": normalized(plan.sql),
        "split": _split_fields(plan.split),
        "null_values": sorted({"", *plan.null_values}),
        "params": plan.params,
        "floats": sorted(plan.floats),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save(plan: Plan, folder: Path, digest: str) -> Path:
    """Writes the plan to `folder`, atomically, under a name that depends on its fingerprint `digest` only."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest}.json"
    record = {**asdict(plan), "split": _split_fields(plan.split)}
    with tempfile.NamedTemporaryFile(
        "w", dir=folder, suffix=".partial", encoding="utf-8", delete=False
    ) as file:
        json.dump(record, file, indent=1, default=str)
        file.flush()
        os.fsync(file.fileno())
    return Path(file.name).replace(path)


def load(path: Path) -> Plan:
    """Reads what `save` wrote.

    Raises:
      DataError: if the file is missing or not a plan.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        spans = record["spans"]
        return Plan(
            tables=tuple(Table(t["name"], tuple(Path(p) for p in t["paths"])) for t in record["tables"]),
            sql=record["sql"],
            sql_source=record["sql_source"],
            split=_split(record["split"]),
            null_values=tuple(record["null_values"]),
            spans=Spans(**spans) if spans else None,
            floats=tuple(record["floats"]),
        )
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as a plan of examples: {error}") from error


def _split_fields(split: Split) -> dict[str, Any]:
    return {"kind": type(split).__name__, **asdict(split)}


def _split(record: dict[str, Any]) -> Split:
    kind: Any = _SPLIT_KINDS[record["kind"]]
    values = ((entry.name, record[entry.name]) for entry in fields(kind))
    split: Split = kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values}
    )
    return split


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
      DataError: if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
