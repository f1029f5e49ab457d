"""What `headworks init` guesses from a table: label, time, identifiers, split, schema and SQL."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import schema_pb2

from cli.table_profile import MOST_VALUES, ColumnProfile, Giveaway, Unreadable, amount
from ingest.errors import DataError
from ingest.query import Column
from ingest.quoting import quoted
from schemas.features import SERVING, DType, LabelKind

TRAINING = "TRAINING"
MOST_CLASSES = 20
"""A whole number with more different values is a quantity and not a class."""
MOST_DOMAIN_VALUES = 20
NEAR_UNIQUE = 0.95
FEWEST_KEYS = 300
FEWEST_ROWS_FOR_UNIQUE = 20
FEWEST_MOMENTS = 10
MOST_MISSING_MOMENTS = 0.05
MOST_UNPARSED_MOMENTS = 0.1
FREE_TEXT_WORDS = 4.0
_WHO = "user|customer|client|patient|member|account|order|session|device|product|item|store|employee|student"
_KEY_NAME = re.compile(
    rf"(^|[^a-z0-9])(id|ids|key|uuid|guid)$|^id_|(?-i:[a-z]I[dD])$|({_WHO})id$", re.IGNORECASE
)
_NUMBER_NAME = re.compile(r"(^|[^a-z0-9])(number|num|no|nr|index|idx|rownum)$", re.IGNORECASE)
_CODE_NAME = re.compile(r"(^|[^a-z0-9])(zip|zip_?code|post_?code|postal_?code|plz)$", re.IGNORECASE)
_BIRTH_NAME = re.compile(r"birth|born|(^|[^a-z0-9])dob$", re.IGNORECASE)
_TIME_NAME = re.compile(
    r"(^|[^a-z0-9])(ts|time|timestamp|epoch|date|datetime|at|unix)([^a-z0-9]|$)", re.IGNORECASE
)
_POSITIVE = frozenset({"yes", "y", "true", "t", "positive", "pos", "1"})
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
      classes: of text, the positive one last; of numbers where the schema's domain cannot list them.
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
    row_number: ColumnProfile | None = None
    """What the query gives each row, as the table has nothing to tell rows by."""


def guess(
    table: str,
    profiles: Sequence[ColumnProfile],
    unreadable: Sequence[Unreadable],
    label: str,
    allow_time: bool = True,
    giveaways: Sequence[Giveaway] = (),
) -> Guesses:
    """Guesses how to learn `label` from a table.

    Args:
      giveaways: columns that tell the label; they are left out as long as another column is left.
      allow_time: whether a split by time is possible.

    Raises:
      DataError: if the label is no column, or nothing can be learnt about it.
    """
    by_name = {profile.name: profile for profile in profiles}
    label_guess = guess_label(label_profile(profiles, label))
    others = [profile for profile in profiles if profile.name != label]
    time = guess_time(others) if allow_time else None
    excluded = tuple(_excluded(others, time))
    dropped = (
        *(Guess(column.name, column.reason) for column in unreadable),
        *(Guess(profile.name, "has no value in any row") for profile in others if not profile.present),
    )
    left_out = {guess.column for guess in (*excluded, *dropped)}
    features = [profile for profile in others if profile.name not in left_out]
    telling = {column.name: column.reason for column in giveaways}
    if silent := [profile for profile in features if profile.name not in telling]:
        excluded += tuple(
            Guess(profile.name, f"the label in disguise: {telling[profile.name]}")
            for profile in features
            if profile.name in telling
        )
        features = silent
    if not features:
        raise DataError("no column is left to learn from: all are the label, times, identifiers or constants")
    key_columns = _key_columns(others, excluded, [f for f in others if f in features or f.name in telling])
    is_keyed = {guess.column for guess in excluded}.issuperset(key_columns)
    row_number = None if time or is_keyed else _row_number(profiles, key_columns)
    if row_number:
        reason = "numbers the rows, which are too much alike to split them by what they say"
        excluded = (*excluded, Guess(row_number.name, reason))
        key_columns = (row_number.name,)
    return Guesses(
        label=label_guess,
        time=time,
        key_columns=key_columns,
        excluded=excluded,
        dropped=dropped,
        sql=_sql(
            table,
            by_name,
            label_guess,
            time,
            dropped,
            [f for f in (by_name[label], *features) if _is_converted(f, label_guess)],
            row_number,
        ),
        bound=_bound(by_name[label], label_guess),
        slices=_slices(features),
        row_number=row_number,
    )


def label_profile(profiles: Sequence[ColumnProfile], label: str) -> ColumnProfile:
    """The label's column.

    Raises:
      DataError: if there is none of that name; the message has the nearest.
    """
    by_name = {profile.name: profile for profile in profiles}
    if label in by_name:
        return by_name[label]
    folded = {name.casefold(): name for name in by_name}
    close = difflib.get_close_matches(label.casefold(), folded, n=1)
    hint = f"did you mean {folded[close[0]]}?" if close else f"it has {', '.join(by_name)}"
    if any(re.fullmatch(r"[-+]?[0-9.]+", name) for name in by_name):
        hint += "; the first line has to hold the names of the columns"
    raise DataError(f"--label {label}: the data has no such column; {hint}")


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
    if profile.column.dtype is DType.INT and (_is_identifier(profile) or _is_row_number(profile)):
        raise DataError(
            f"--label {name}: an identifier, {values:,} different numbers in {profile.present:,} rows; name the "
            "column to predict"
        )
    if profile.are_amounts and values > MOST_CLASSES:
        return LabelGuess(name, LabelKind.REGRESSION, f"an amount with {values:,} values")
    if profile.column.dtype is DType.BYTES:
        if values > MOST_VALUES:
            raise DataError(
                f"--label {name}: {values:,} different texts are too many classes (most: {MOST_VALUES})"
            )
        return LabelGuess(name, _class_kind(values), f"text with {values} values", _classes(profile))
    # Whole numbers among which some are missing are often written with a point.
    are_classes = values == 2 or profile.column.dtype is DType.INT or profile.missing > 0
    if values <= MOST_CLASSES and profile.is_whole and are_classes:
        numbers = sorted(int(float(value)) for value, _ in profile.counts)
        contiguous = numbers == list(range(numbers[0], numbers[-1] + 1))
        speaks_for_itself = contiguous and (values > 2 or numbers == [0, 1])
        return LabelGuess(
            name,
            _class_kind(values),
            f"a whole number with {values} values",
            () if speaks_for_itself else tuple(map(str, numbers)),
            as_integer=profile.column.dtype is DType.FLOAT,
        )
    return LabelGuess(name, LabelKind.REGRESSION, f"a number with {values:,} values")


def _classes(profile: ColumnProfile) -> tuple[str, ...]:
    """A text label's values; of two the positive one is last: the one that says so, else the rarer."""
    classes = tuple(sorted(value for value, _ in profile.counts))
    if len(classes) != 2:
        return classes
    positive = [value for value in classes if value.strip().casefold() in _POSITIVE]
    (most, most_rows), (least, least_rows) = profile.counts
    if len(positive) == 1:
        last = positive[0]
    elif most_rows == least_rows:
        last = classes[1]
    else:
        last = least
    return (most, least) if last == least else (least, most)


def why_no_time(profiles: Sequence[ColumnProfile], label: str) -> str:
    """Why `guess_time` found no column to split by."""
    for profile in profiles:
        if profile.name == label or not (_is_moment(profile) or _are_mostly_times(profile)):
            continue
        if _BIRTH_NAME.search(profile.name):
            return f"as {profile.name} is when somebody was born, not when a row came about"
        if profile.missing > MOST_MISSING_MOMENTS * profile.rows:
            return f"as {profile.name} is missing in {profile.missing:,} rows"
        if profile.unparsed_times:
            return (
                f"as {profile.name} is no date or time in {profile.unparsed_times:,} rows (mend them, or name what "
                "they say in data.source.null_values)"
            )
        moments = "one moment" if profile.distinct == 1 else f"{profile.distinct} different moments"
        return f"as {profile.name} has only {moments}"
    return "as no column is a date or time"


def _is_moment(profile: ColumnProfile) -> bool:
    is_one = profile.column.is_time or profile.are_times or is_epoch(profile)
    return is_one and not profile.column.is_list and profile.present > 0


def _are_mostly_times(profile: ColumnProfile) -> bool:
    return 0 < profile.unparsed_times <= MOST_UNPARSED_MOMENTS * profile.present


def guess_time(profiles: Sequence[ColumnProfile]) -> Guess | None:
    """The column that orders the rows: the date or time with the most different values."""
    times = [
        profile
        for profile in profiles
        if _is_moment(profile)
        and profile.distinct >= FEWEST_MOMENTS
        and profile.missing <= MOST_MISSING_MOMENTS * profile.rows
        and not _BIRTH_NAME.search(profile.name)
    ]
    if not times:
        return None
    best = max(times, key=lambda profile: profile.distinct)
    how = best.column.sql_type
    if best.are_times:
        how = f"text that reads as a date or time{f' ({best.time_format})' if best.time_format else ''},"
    elif is_epoch(best) and not best.column.is_time:
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
    made = [guesses.row_number] if guesses.row_number else []
    for profile in (*profiles, *made):
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
    elif feature.type == schema_pb2.INT and (
        _CODE_NAME.search(profile.name) or _KEY_NAME.search(profile.name)
    ):
        feature.int_domain.is_categorical = True
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
        elif _is_moment(profile) or _are_mostly_times(profile):
            yield Guess(profile.name, "a date or time: a model would learn when, which does not come again")
        elif profile.distinct == 1 and not profile.missing:
            yield Guess(
                profile.name, f"constant: {profile.counts[0][0] if profile.counts else 'one value'!r}"
            )
        elif _is_row_number(profile):
            yield Guess(profile.name, "numbers the rows")
        elif _is_identifier(profile) or _is_entity(profile):
            yield Guess(profile.name, f"identifier: {profile.distinct:,} values in {profile.present:,} rows")


def _is_entity(profile: ColumnProfile) -> bool:
    """Whether a column names whom or what a row is about, and several rows may be about the same."""
    return (
        not profile.column.is_list
        and profile.distinct > MOST_VALUES
        and (profile.column.dtype is not DType.FLOAT or profile.is_whole)
        and _has_id_name(profile)
    )


def _has_id_name(profile: ColumnProfile) -> bool:
    return any(pattern.search(profile.name) for pattern in (_KEY_NAME, _NUMBER_NAME))


def _row_number(profiles: Sequence[ColumnProfile], key_columns: Sequence[str]) -> ColumnProfile | None:
    """A number for each row, where the key has so few values that splits by it would be uneven."""
    keys = math.prod(profile.distinct + 1 for profile in profiles if profile.name in key_columns)
    rows = profiles[0].rows
    if keys >= FEWEST_KEYS or rows < FEWEST_ROWS_FOR_UNIQUE:
        return None
    name = "row_number"
    while name in {profile.name.casefold() for profile in profiles}:
        name = f"the_{name}"
    column = Column(name, "BIGINT", DType.INT)
    return ColumnProfile(column, rows, rows, rows, low=1, high=rows, is_whole=True)


def _is_row_number(profile: ColumnProfile) -> bool:
    """Whether a column counts the rows, whatever its name: what `to_csv` and `reset_index` leave behind."""
    if profile.column.dtype is not DType.INT or profile.column.is_list or profile.column.is_time:
        return False
    if profile.rows < FEWEST_ROWS_FOR_UNIQUE or profile.low not in (0, 1) or profile.high is None:
        return False
    return profile.distinct == profile.rows and profile.high - profile.low + 1 == profile.rows


def _is_identifier(profile: ColumnProfile) -> bool:
    if profile.column.is_list or profile.present < FEWEST_ROWS_FOR_UNIQUE:
        return False
    if profile.distinct < NEAR_UNIQUE * profile.present or profile.are_amounts:
        return False
    if profile.column.dtype is DType.BYTES:
        return profile.words < FREE_TEXT_WORDS
    return profile.column.dtype is DType.INT and _has_id_name(profile)


def _key_columns(
    profiles: Sequence[ColumnProfile], excluded: Sequence[Guess], features: Sequence[ColumnProfile]
) -> tuple[str, ...]:
    """Whom a row is about, so that nobody is in two splits; else an identifier; else all that a row says.

    Equal rows stay in one split in any case.

    Args:
      features: what a row says, with what would give the label away.
    """
    left_out = {guess.column for guess in excluded}
    complete = [profile for profile in profiles if profile.name in left_out and not profile.missing]
    entities = [profile for profile in complete if _is_entity(profile) and profile.distinct < profile.rows]
    identifiers = [profile for profile in complete if _is_identifier(profile) or _is_row_number(profile)]
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
    row_number: ColumnProfile | None,
) -> str | None:
    """A query where the table cannot be taken as it is."""
    conversions = [
        f"CAST({amount(quoted(p.name), p.has_decimal_commas)} AS DOUBLE) AS {quoted(p.name)}" for p in amounts
    ]
    if label.as_integer:
        conversions.append(f"CAST({quoted(label.name)} AS BIGINT) AS {quoted(label.name)}")
    if time is not None and profiles[time.column].are_times:
        name, form = quoted(time.column), profiles[time.column].time_format
        conversions.append(
            f"strptime({name}, '{form}') AS {name}" if form else f"CAST({name} AS TIMESTAMP) AS {name}"
        )
    needed = [name for name in (label.name, time.column if time else None) if name and profiles[name].missing]
    if not (conversions or needed or dropped or row_number):
        return None
    lines = ["-- Written by `headworks init`: the table without what cannot be used.", "SELECT *"]
    if dropped:
        lines.append(f"    EXCLUDE ({', '.join(quoted(guess.column) for guess in dropped)})")
    if conversions:
        lines.append("    REPLACE (\n        " + ",\n        ".join(conversions) + "\n    )")
    if row_number:
        # DuckDB keeps the order of the files and of their rows.
        lines[-1] += f", row_number() OVER () AS {quoted(row_number.name)}"
    lines.append(f"FROM {quoted(table)}")
    if needed:
        lines.append("WHERE " + " AND ".join(_has_value(profiles[name]) for name in needed))
    return "\n".join(lines) + "\n"


def _has_value(profile: ColumnProfile) -> str:
    name = quoted(profile.name)
    is_number = profile.column.sql_type in ("FLOAT", "DOUBLE")
    return f"{name} IS NOT NULL AND NOT isnan({name})" if is_number else f"{name} IS NOT NULL"


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
