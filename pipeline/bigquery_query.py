"""What BigQueryExampleGen asks of BigQuery: one query a split, with places for the span range and the snapshot time.

The split is decided in SQL, by the rules of `ingest.splits`, so that a row falls into the same split as in DuckDB.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ingest.errors import DataError
from ingest.splits import (
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    ColumnSplit,
    HashSplit,
    Split,
    TimeBoundaries,
    TimeFractions,
)

SPAN_PARAMETERS = ("first_span", "last_span")
SNAPSHOT_PARAMETER = "snapshot_time"
AT_START = "start"
"""The snapshot time of a run that is one of a schedule: when its component starts. No cache may answer for that."""

_PARAMETER = re.compile(rf"\$({'|'.join((*SPAN_PARAMETERS, SNAPSHOT_PARAMETER))})\b")
_HASH_DIGITS = 8
_NO_VALUE, _SEPARATOR = (f"SAFE_CONVERT_BYTES_TO_STRING(FROM_HEX('{code}'))" for code in ("00", "1f"))
_ROWS, _MOMENTS, _BOUNDS = "headworks_rows", "headworks_moments", "headworks_bounds"


@dataclass(frozen=True)
class SplitQuery:
    """The query of one split.

    Attributes:
      split: train, validation or test.
      sql: one SELECT in BigQuery's SQL, with `$first_span`, `$last_span` and `$snapshot_time` where it has them.
    """

    split: str
    sql: str


@dataclass(frozen=True)
class Binding:
    """Values of the parameters of one run.

    Attributes:
      span: the newest span to read; None where the data has none.
      window: the number of spans up to it; None for all of them.
      snapshot_time: ISO 8601, in UTC where it has no zone; None where no table is read as it was at a time.
    """

    span: int | None = None
    window: int | None = None
    snapshot_time: str | None = None

    @property
    def spans(self) -> tuple[int, int] | None:
        """The oldest and the newest span."""
        if self.span is None:
            return None
        return (0 if self.window is None else max(self.span - self.window + 1, 0)), self.span

    def bind(self, sql: str) -> str:
        """A query with its parameters replaced by their values.

        Raises:
          DataError: if it has a parameter without a value, or the snapshot time is none.
        """
        values: dict[str, str] = {}
        if self.spans is not None:
            if self.spans[1] < 0:
                raise DataError(f"span {self.spans[1]}: want 0 or more")
            values.update(zip(SPAN_PARAMETERS, map(str, self.spans), strict=True))
        if self.snapshot_time is not None:
            values[SNAPSHOT_PARAMETER] = moment(self.snapshot_time)

        def value(found: re.Match[str]) -> str:
            if found[1] not in values:
                known = "snapshot_time" if found[1] == SNAPSHOT_PARAMETER else "span"
                raise DataError(f"the query has ${found[1]}, and the run was given no {known}")
            return values[found[1]]

        return _PARAMETER.sub(value, sql)


@dataclass(frozen=True)
class Reading:
    """What the component does with the rows.

    Attributes:
      floats: columns that are FLOAT even where BigQuery has whole numbers.
      keys: columns whose texts decide the split, which both engines write alike for some types only.
    """

    floats: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


def moment(text: str) -> str:
    """A time as BigQuery's `TIMESTAMP '...'` takes it, the same for the same instant.

    Raises:
      DataError: if it is not a date or time in ISO 8601.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(
            f"snapshot_time {text!r}: want a date or time such as 2026-01-31T06:00:00Z (UTC where it has no zone)"
        ) from error
    utc = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    return utc.isoformat(" ")


def fingerprint(queries: Sequence[SplitQuery], reading: Reading, binding: Binding) -> str:
    """SHA-256, in hexadecimal, over the queries with their values and the columns that are FLOAT.

    Equal ones mean equal rows if every table is read at a snapshot time. Of tables that are not, and of external
    tables and views, it says nothing.
    """
    bound = {query.split: binding.bind(query.sql) for query in queries}
    content = [bound, sorted(reading.floats), binding.snapshot_time and moment(binding.snapshot_time)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parameters_of(sql: str) -> frozenset[str]:
    """Which parameters a query has."""
    return frozenset(_PARAMETER.findall(sql))


def split_queries(sql: str, split: Split, names: Mapping[str, str] | None = None) -> tuple[SplitQuery, ...]:
    """One query for each of train, validation and test; a row of none of them stops the query with a message.

    Args:
      sql: one SELECT in BigQuery's SQL.
      split: as for files.
      names: the data's names of the splits, of a split by column; absent: train, validation and test.
    """
    if isinstance(split, TimeFractions):
        return tuple(SplitQuery(name, _by_fraction(sql, split, name)) for name in SPLITS)
    columns = f"* EXCEPT ({_quoted(split.column)})" if isinstance(split, ColumnSplit) else "*"
    route = _route(split, names or {name: name for name in SPLITS})
    return tuple(
        SplitQuery(name, f"SELECT {columns}\nFROM (\n{sql}\n)\nWHERE {route} = {_text(name)}")
        for name in SPLITS
    )


def _route(split: TimeBoundaries | ColumnSplit | HashSplit, names: Mapping[str, str]) -> str:
    match split:
        case TimeBoundaries():
            time = _quoted(split.column)
            return _by_time(time, _boundary(split.validation_from), _boundary(split.test_from), time)
        case ColumnSplit():
            value = f"CAST({_quoted(split.column)} AS STRING)"
            cases = " ".join(f"WHEN {_text(theirs)} THEN {_text(ours)}" for ours, theirs in names.items())
            known = ", ".join(names.values())
            fault = (
                f"CONCAT({_text(f'split: column {split.column} names no split: ')}, IFNULL({value}, 'NULL'), "
            )
            return f"CASE {value} {cases} ELSE ERROR({fault}{_text(f'; want {known}')})) END"
        case HashSplit():
            keys = f" || {_SEPARATOR} || ".join(
                f"IFNULL(CAST({_quoted(name)} AS STRING), {_NO_VALUE})" for name in split.columns
            )
            position = f"CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5({keys})), 1, {_HASH_DIGITS})) AS INT64)"
            size = 16**_HASH_DIGITS
            return (
                f"CASE WHEN {position} < {round(split.test * size)} THEN '{TEST}' "
                f"WHEN {position} < {round((split.test + split.validation) * size)} THEN '{VALIDATION}' "
                f"ELSE '{TRAIN}' END"
            )


def _by_time(time: str, validation: str, test: str, column: str) -> str:
    message = (
        f"split: column {column.strip('`')} is NULL in a row, which has no place in time; leave such rows out"
    )
    return (
        f"CASE WHEN {time} >= {test} THEN '{TEST}' WHEN {time} >= {validation} THEN '{VALIDATION}' "
        f"WHEN {time} IS NOT NULL THEN '{TRAIN}' ELSE ERROR({_text(message)}) END"
    )


def _boundary(text: str) -> str:
    """A number, or a text that BigQuery takes for a DATE, DATETIME or TIMESTAMP, as the column is."""
    if text.isdigit():
        return text
    found = datetime.fromisoformat(text)
    utc = found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    is_day = utc.time() == datetime.min.time()
    return _text(utc.date().isoformat() if is_day else utc.isoformat(" "))


def _by_fraction(sql: str, split: TimeFractions, name: str) -> str:
    """The boundary is the first moment with more rows up to it than stay before, as sorting all rows would find."""
    time = _quoted(split.column)

    def first(fraction: float) -> str:
        share = f"total * {fraction!r}"
        # To the nearest even number, as Python rounds.
        rows = f"IF({share} - FLOOR({share}) = 0.5, 2 * ROUND({share} / 2), ROUND({share}))"
        return f"MIN(IF(upto > total - {rows}, moment, NULL))"

    route = _by_time(f"{_ROWS}.{time}", f"{_BOUNDS}.validation_from", f"{_BOUNDS}.test_from", time)
    none = _text("split: a fraction of the rows is less than one row; raise the fraction")
    return f"""WITH {_ROWS} AS (
{sql}
),
{_MOMENTS} AS (
SELECT {time} AS moment, SUM(COUNT(*)) OVER (ORDER BY {time}) AS upto, SUM(COUNT(*)) OVER () AS total
FROM {_ROWS}
WHERE {time} IS NOT NULL
GROUP BY {time}
),
{_BOUNDS} AS (
SELECT {first(split.validation + split.test)} AS validation_from, {first(split.test)} AS test_from
FROM {_MOMENTS}
)
SELECT {_ROWS}.*
FROM {_ROWS} CROSS JOIN {_BOUNDS}
WHERE IF({_BOUNDS}.test_from IS NULL, ERROR({none}), {route}) = {_text(name)}"""


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
