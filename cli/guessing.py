"""What `headworks init` guesses from a table: label, time, identifiers, split, schema and SQL."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import schema_pb2

from cli.table_profile import MOST_VALUES, ColumnProfile, Unreadable, amount
from ingest.errors import DataError
from ingest.quoting import quoted
from schemas.features import SERVING, DType, LabelKind

TRAINING = "TRAINING"
MOST_CLASSES = 20
"""A whole number with more different values is a quantity and not a class."""
MOST_DOMAIN_VALUES = 20
NEAR_UNIQUE = 0.95
FEWEST_ROWS_FOR_UNIQUE = 20
FEWEST_MOMENTS = 10
FREE_TEXT_WORDS = 4.0
_ID_NAME = re.compile(
    r"(^|_)(id|ids|key|uuid|guid|number|num|no|nr|index|idx|rownum)$|^id_|(?-i:[a-z]I[dD])$", re.IGNORECASE
)

_TIME_NAME = re.compile(r"(^|_)(ts|time|timestamp|epoch|date|datetime|at|unix)(_|$)", re.IGNORECASE)
_YEAR_2000, _YEAR_2050 = 946_684_800, 2_524_608_000

_TYPES = {DType.INT: schema_pb2.INT, DType.FLOAT: schema_pb2.FLOAT, DType.BYTES: schema_pb2.BYTES}


@dataclass(frozen=True)
class Guess:
    """A decision about a column, and why."""

    column: str
    reason: str


@dataclass(frozen=True)
class LabelGuess:
    """The label.

    Attributes:
      name: the column.
      kind: what is predicted.
      reason: why.
      classes: of text, and of numbers where the schema's domain cannot list them.
      as_integer: whether whole numbers are written with a point, 0.0 and 1.0, and become 0 and 1.
    """

    name: str
    kind: LabelKind
    reason: str
    classes: tuple[str, ...] = ()
    as_integer: bool = False


@dataclass(frozen=True)
class Guesses:
    """Everything guessed about one table."""

    label: LabelGuess
    time: Guess | None
    key_columns: tuple[str, ...]
    excluded: tuple[Guess, ...]
    dropped: tuple[Guess, ...]
    sql: str | None
    bound: str
    slices: tuple[tuple[str, ...], ...]


def guess(
    table: str,
    profiles: Sequence[ColumnProfile],
    unreadable: Sequence[Unreadable],
    label: str,
    allow_time: bool = True,
) -> Guesses:
    """Guesses how to learn `label` from a table.

    Args:
      allow_time: whether a split by time is possible.

    Raises:
      DataError: if the label is no column, or nothing can be learnt about it.
    """
    by_name = {profile.name: profile for profile in profiles}
    if label not in by_name:
        close = difflib.get_close_matches(label, by_name, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(by_name)}"
        raise DataError(f"--label {label}: the data has no such column; {hint}")
    label_guess = guess_label(by_name[label])
    others = [profile for profile in profiles if profile.name != label]
    time = guess_time(others) if allow_time else None
    excluded = tuple(_excluded(others, time))
    dropped = (
        *(Guess(column.name, column.reason) for column in unreadable),
        *(Guess(profile.name, "has no value in any row") for profile in others if not profile.present),
    )
    left_out = {guess.column for guess in (*excluded, *dropped)}
    features = [profile for profile in others if profile.name not in left_out]
    if not features:
        raise DataError("no column is left to learn from: all are the label, times, identifiers or constants")
    return Guesses(
        label=label_guess,
        time=time,
        key_columns=_key_columns(others, excluded, features),
        excluded=excluded,
        dropped=dropped,
        sql=_sql(
            table,
            by_name,
            label_guess,
            time,
            dropped,
            [f for f in (by_name[label], *features) if _is_converted(f, label_guess)],
        ),
        bound=_bound(by_name[label], label_guess),
        slices=_slices(features),
    )


def guess_label(profile: ColumnProfile) -> LabelGuess:
    """Says what kind of prediction a column asks for.

    Raises:
      DataError: if the column cannot be a label.
    """
    name, values = profile.name, profile.distinct
    if profile.column.is_list or profile.column.is_time:
        raise DataError(f"--label {name}: a column of type {profile.column.sql_type} cannot be a label")
    if values < 2:
        found = f"is {profile.counts[0][0]!r} in every row" if profile.counts else "has no value in any row"
        raise DataError(f"--label {name}: the column {found}; at least two different values are needed")
    if profile.are_amounts and values > MOST_CLASSES:
        return LabelGuess(name, LabelKind.REGRESSION, f"an amount with {values:,} values")
    if profile.column.dtype is DType.BYTES:
        if values > MOST_VALUES:
            raise DataError(
                f"--label {name}: {values:,} different texts are too many classes (most: {MOST_VALUES})"
            )
        classes = tuple(sorted(value for value, _ in profile.counts))
        return LabelGuess(name, _class_kind(values), f"text with {values} values", classes)
    if values <= MOST_CLASSES and profile.is_whole and (values == 2 or profile.column.dtype is DType.INT):
        numbers = sorted(int(float(value)) for value, _ in profile.counts)
        contiguous = numbers == list(range(numbers[0], numbers[-1] + 1))
        return LabelGuess(
            name,
            _class_kind(values),
            f"a whole number with {values} values",
            () if contiguous else tuple(map(str, numbers)),
            as_integer=profile.column.dtype is DType.FLOAT,
        )
    return LabelGuess(name, LabelKind.REGRESSION, f"a number with {values:,} values")


def guess_time(profiles: Sequence[ColumnProfile]) -> Guess | None:
    """The column that orders the rows: the date or time with the most different values."""
    times = [
        profile
        for profile in profiles
        if (profile.column.is_time or profile.are_times or is_epoch(profile))
        and not profile.column.is_list
        and profile.distinct >= FEWEST_MOMENTS
        and profile.missing <= 0.05 * profile.rows
    ]
    if not times:
        return None
    best = max(times, key=lambda profile: profile.distinct)
    how = best.column.sql_type
    if best.are_times:
        how = f"text that reads as a date or time{f' ({best.time_format})' if best.time_format else ''},"
    elif is_epoch(best):
        how = "Unix time"
    return Guess(best.name, f"{how} with {best.distinct:,} moments")


def is_epoch(profile: ColumnProfile) -> bool:
    """Whether whole numbers are seconds or milliseconds since 1970, by their name and range."""
    if profile.column.dtype is not DType.INT or profile.low is None or profile.high is None:
        return False
    is_named = _TIME_NAME.search(profile.name) is not None
    return is_named and any(
        unit * _YEAR_2000 <= profile.low and profile.high <= unit * _YEAR_2050 for unit in (1, 1000)
    )


def schema_of(profiles: Sequence[ColumnProfile], guesses: Guesses) -> schema_pb2.Schema:
    """The schema of what the query gives."""
    schema = schema_pb2.Schema(default_environment=[TRAINING, SERVING])
    dropped = {guess.column for guess in guesses.dropped}
    excluded = {guess.column for guess in guesses.excluded}
    for profile in profiles:
        if profile.name not in dropped:
            schema.feature.append(_feature(profile, guesses, profile.name in excluded))
    return schema


def _feature(profile: ColumnProfile, guesses: Guesses, is_excluded: bool) -> schema_pb2.Feature:
    label, time = guesses.label, guesses.time
    feature = schema_pb2.Feature(name=profile.name, type=_TYPES[profile.column.dtype])
    is_required = (
        not profile.missing
        or profile.name == label.name
        or (time is not None and profile.name == time.column)
    )
    feature.presence.min_count = 1
    if is_required:
        feature.presence.min_fraction = 1.0
    feature.value_count.min = 1
    if not profile.column.is_list:
        feature.value_count.max = 1
    if profile.name == label.name:
        feature.not_in_environment.append(SERVING)
        _label_domain(feature, profile, label)
    elif time is not None and profile.name == time.column:
        feature.type = schema_pb2.INT
    elif profile.are_amounts and not is_excluded:
        feature.type = schema_pb2.FLOAT
    elif not is_excluded and not profile.column.is_list:
        _domain(feature, profile)
    return feature


def _label_domain(feature: schema_pb2.Feature, profile: ColumnProfile, label: LabelGuess) -> None:
    if label.kind is LabelKind.REGRESSION:
        if profile.are_amounts:
            feature.type = schema_pb2.FLOAT
        return
    if profile.column.dtype is DType.BYTES:
        feature.string_domain.value.extend(sorted(value for value, _ in profile.counts))
        return
    feature.type = schema_pb2.INT
    numbers = [int(float(value)) for value, _ in profile.counts]
    feature.int_domain.min, feature.int_domain.max = min(numbers), max(numbers)


def _domain(feature: schema_pb2.Feature, profile: ColumnProfile) -> None:
    """The values a feature may take, where they are so few and so frequent that all have been seen."""
    is_frequent = profile.present >= 10 * profile.distinct
    if profile.column.sql_type == "BOOLEAN" or (
        feature.type == schema_pb2.INT and {value for value, _ in profile.counts} == {"0", "1"}
    ):
        feature.bool_domain.SetInParent()
    elif profile.column.dtype is DType.BYTES and profile.words >= FREE_TEXT_WORDS and not _has_few(profile):
        feature.natural_language_domain.SetInParent()
    elif profile.column.dtype is DType.BYTES and _has_few(profile) and is_frequent:
        feature.string_domain.value.extend(sorted(value for value, _ in profile.counts))
    elif feature.type == schema_pb2.INT and _has_few(profile) and is_frequent and not profile.column.is_time:
        numbers = [int(value) for value, _ in profile.counts]
        feature.int_domain.min, feature.int_domain.max = min(numbers), max(numbers)


def _has_few(profile: ColumnProfile) -> bool:
    return bool(profile.counts) and profile.distinct <= MOST_DOMAIN_VALUES


def _class_kind(values: int) -> LabelKind:
    return LabelKind.BINARY if values == 2 else LabelKind.MULTICLASS


def _excluded(profiles: Sequence[ColumnProfile], time: Guess | None) -> Iterator[Guess]:
    for profile in profiles:
        if not profile.present:
            continue
        if time is not None and profile.name == time.column:
            yield Guess(profile.name, "the time that splits the rows")
        elif profile.column.is_time or profile.are_times or is_epoch(profile):
            yield Guess(profile.name, "a date or time: a model would learn when, which does not come again")
        elif profile.distinct == 1 and not profile.missing:
            yield Guess(profile.name, f"constant: {profile.counts[0][0] if profile.counts else 'one value'}")
        elif _is_identifier(profile) or _is_entity(profile):
            yield Guess(profile.name, f"identifier: {profile.distinct:,} values in {profile.present:,} rows")


def _is_entity(profile: ColumnProfile) -> bool:
    """Whether a column names whom or what a row is about, and several rows may be about the same."""
    return (
        not profile.column.is_list
        and profile.distinct > MOST_VALUES
        and profile.column.dtype is not DType.FLOAT
        and _ID_NAME.search(profile.name) is not None
    )


def _is_identifier(profile: ColumnProfile) -> bool:
    if profile.column.is_list or profile.present < FEWEST_ROWS_FOR_UNIQUE:
        return False
    if profile.distinct < NEAR_UNIQUE * profile.present or profile.are_amounts:
        return False
    if profile.column.dtype is DType.BYTES:
        return profile.words < FREE_TEXT_WORDS
    return profile.column.dtype is DType.INT and _ID_NAME.search(profile.name) is not None


def _key_columns(
    profiles: Sequence[ColumnProfile], excluded: Sequence[Guess], features: Sequence[ColumnProfile]
) -> tuple[str, ...]:
    """Whom a row is about, so that nobody is in two splits; else an identifier; else all features.

    Equal rows stay in one split in any case.
    """
    left_out = {guess.column for guess in excluded}
    complete = [profile for profile in profiles if profile.name in left_out and not profile.missing]
    entities = [profile for profile in complete if _is_entity(profile) and profile.distinct < profile.rows]
    identifiers = [profile for profile in complete if _is_identifier(profile)]
    if entities:
        return (min(entities, key=lambda profile: profile.distinct).name,)
    if identifiers:
        return (max(identifiers, key=lambda profile: profile.distinct).name,)
    return tuple(profile.name for profile in features)


def _sql(
    table: str,
    profiles: dict[str, ColumnProfile],
    label: LabelGuess,
    time: Guess | None,
    dropped: Sequence[Guess],
    amounts: Sequence[ColumnProfile],
) -> str | None:
    """A query where the table cannot be taken as it is."""
    conversions = [f"CAST({amount(quoted(p.name))} AS DOUBLE) AS {quoted(p.name)}" for p in amounts]
    if label.as_integer:
        conversions.append(f"CAST({quoted(label.name)} AS BIGINT) AS {quoted(label.name)}")
    if time is not None and profiles[time.column].are_times:
        name, form = quoted(time.column), profiles[time.column].time_format
        conversions.append(
            f"strptime({name}, '{form}') AS {name}" if form else f"CAST({name} AS TIMESTAMP) AS {name}"
        )
    needed = [name for name in (label.name, time.column if time else None) if name and profiles[name].missing]
    if not (conversions or needed or dropped):
        return None
    lines = ["-- Written by `headworks init`: the table without what cannot be used.", "SELECT *"]
    if dropped:
        lines.append(f"    EXCLUDE ({', '.join(quoted(guess.column) for guess in dropped)})")
    if conversions:
        lines.append(f"    REPLACE ({', '.join(conversions)})")
    lines.append(f"FROM {quoted(table)}")
    if needed:
        lines.append("WHERE " + " AND ".join(f"{quoted(name)} IS NOT NULL" for name in needed))
    return "\n".join(lines) + "\n"


def _is_converted(profile: ColumnProfile, label: LabelGuess) -> bool:
    """Whether a column's amounts become numbers; those of a label with few values are classes."""
    return profile.are_amounts and (profile.name != label.name or label.kind is LabelKind.REGRESSION)


def _bound(profile: ColumnProfile, label: LabelGuess) -> str:
    """What a model that knows nothing reaches, as the least that a pushed one must."""
    if label.kind is LabelKind.BINARY:
        return "{metric: auc, min: 0.55}  # 0.5 is a coin"
    if label.kind is LabelKind.MULTICLASS:
        share = profile.counts[0][1] / profile.present
        return f"{{metric: accuracy, min: {share:.3f}}}  # always guessing {profile.counts[0][0]!r}"
    return f"{{metric: mean_squared_error, max: {profile.variance or 0.0:.6g}}}  # always guessing the mean"


def _slices(features: Sequence[ColumnProfile]) -> tuple[tuple[str, ...], ...]:
    few = [f for f in features if f.column.dtype is DType.BYTES and _has_few(f) and f.distinct > 1]
    return tuple((profile.name,) for profile in few[:2] if not profile.are_amounts)
