"""What data may train a model: anomalies against the schema, numbers of rows, missing and new values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from gates.settings import AnomalyRule, DataGateSettings
from gates.verdict import Outcome, Verdict

_WHOLE_DATASET = "(all columns)"
_REASON_TYPE = anomalies_pb2.AnomalyInfo.Type
_TRAIN = "train"
_ALPHA = 1e-4

_BY_ACTION = {"fail": Outcome.REFUSED, "warn": Outcome.WARNED, "quarantine": Outcome.REFUSED}
"""What follows from an anomaly; the rows of a `quarantine` rule are gone before, so what is left of one is refused."""


@dataclass(frozen=True)
class NewValues:
    """Values of one column in a split that train lacks.

    Attributes:
      total: values of the column in the split.
      unknown: how many of them train lacks.
      examples: the most frequent of them.
    """

    total: int
    unknown: int
    examples: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of the values that train lacks."""
        return self.unknown / self.total if self.total else 0.0


def judge_anomalies(
    anomalies: Mapping[str, anomalies_pb2.Anomalies], rules: Sequence[AnomalyRule]
) -> tuple[Verdict, ...]:
    """Judges what TFDV found against the schema.

    Args:
      anomalies: by split.
      rules: what follows from which; the first that fits counts. Without one an error is refused, a warning warned.

    Returns:
      One verdict an anomaly, and one for each split that has none.
    """
    verdicts: list[Verdict] = []
    for split, found in anomalies.items():
        its = list(_anomalies(split, found, rules))
        clean = f"the {split} split is as the schema says"
        verdicts += its or [Verdict(f"schema of {split}", Outcome.PASSED, "as is", "as in the schema", clean)]
    return tuple(_uniquely_named(verdicts))


def _anomalies(split: str, found: anomalies_pb2.Anomalies, rules: Sequence[AnomalyRule]) -> Iterator[Verdict]:
    if found.data_missing:
        words = f"the {split} split has no rows"
        yield Verdict(f"data in {split}", Outcome.REFUSED, "none", "some rows", words)
    columns = [(".".join(info.path.step) or name, info) for name, info in found.anomaly_info.items()]
    if found.HasField("dataset_anomaly_info"):
        columns.append((_WHOLE_DATASET, found.dataset_anomaly_info))
    for column, info in columns:
        # A finding without reasons has its words in itself, and has to be judged all the same.
        for reason in info.reason or [info]:
            kind = _REASON_TYPE.Name(getattr(reason, "type", _REASON_TYPE.UNKNOWN_TYPE))
            rule = next((r for r in rules if r.column in ("*", column) and r.kind in ("*", kind)), None)
            is_error = info.severity == anomalies_pb2.AnomalyInfo.ERROR
            outcome = _BY_ACTION["fail" if is_error else "warn"] if rule is None else _BY_ACTION[rule.action]
            told = ": ".join(
                text.rstrip(".") for text in (reason.short_description, reason.description) if text
            )
            words = f"column {column!r} in the {split} split: {told} ({kind})"
            if outcome is Outcome.REFUSED:
                words += (
                    ": repair the data, correct the schema (headworks schema diff, then accept), or say what follows "
                    "under data_gate.rules"
                )
            yield Verdict(
                f"{kind} of {column} in {split}", outcome, reason.short_description, "as in the schema", words
            )


def _uniquely_named(verdicts: Sequence[Verdict]) -> Iterator[Verdict]:
    """TFDV may give two reasons of one kind."""
    seen: dict[str, int] = {}
    for verdict in verdicts:
        seen[verdict.name] = seen.get(verdict.name, 0) + 1
        count = seen[verdict.name]
        yield verdict if count == 1 else replace(verdict, name=f"{verdict.name} ({count})")


def judge_rows(
    rows: Mapping[str, int], previous: Mapping[str, int], settings: DataGateSettings
) -> Iterator[Verdict]:
    """Judges how many rows there are.

    Args:
      rows: by split.
      previous: by split, of the data accepted before; empty without any.
      settings: the bounds.
    """
    for split, count in rows.items():
        words = f"the {split} split has {count:,} rows"
        passed = count >= settings.min_rows
        if not passed:
            words += f", fewer than data_gate.min_rows {settings.min_rows:,}"
        bound = f"at least {settings.min_rows:,}"
        yield Verdict(f"rows in {split}", Outcome.of(passed), f"{count:,}", bound, words)
    if sum(previous.values()):
        yield _change(sum(rows.values()), sum(previous.values()), settings)


def _change(count: int, before: int, settings: DataGateSettings) -> Verdict:
    """Of all splits together, because where a split begins is a setting and not the data."""
    change = count / before - 1
    passed = abs(change) <= settings.max_row_change
    words = f"the data has {count:,} rows, {change:+.0%} against the {before:,} accepted before"
    if not passed:
        words += (
            f", more than data_gate.max_row_change {settings.max_row_change:.0%}: look for files that are missing or "
            "were loaded twice"
        )
    bound = f"within {settings.max_row_change:.0%}"
    return Verdict("change of rows", Outcome.of(passed), f"{change:+.0%}", bound, words)


def judge_rows_counted(rows: Mapping[str, int], counted: Mapping[str, int]) -> Iterator[Verdict]:
    """Refuses statistics of other rows than those in the examples.

    Args:
      rows: by split, as read from the examples.
      counted: by split, as StatisticsGen says.
    """
    for split, count in rows.items():
        passed = count == counted[split]
        words = f"the {split} split has {count:,} rows, and StatisticsGen counted {counted[split]:,}"
        if not passed:
            words += ": one of the two is damaged; run again with --no-cache"
        figure, bound = f"{counted[split]:,}", f"{count:,}"
        yield Verdict(f"rows counted in {split}", Outcome.of(passed), figure, bound, words)


def missing_shares(statistics: statistics_pb2.DatasetFeatureStatistics) -> dict[str, float]:
    """Share of rows without a value, by column; NaN counts as none, as it does to the model."""
    shares = {}
    for column in statistics.features:
        numbers = column.num_stats if column.HasField("num_stats") else None
        common = (numbers or column.string_stats).common_stats
        rows = common.num_missing + common.num_non_missing
        nan = sum(histogram.num_nan for histogram in numbers.histograms[:1]) if numbers is not None else 0
        if rows:
            shares[".".join(column.path.step) or column.name] = (common.num_missing + nan) / rows
    return shares


@dataclass(frozen=True)
class Missing:
    """Missing values of some rows.

    Attributes:
      shares: of the rows without a value, by column; a column that the rows lack altogether is not among them.
      rows: how many rows there are.
    """

    shares: Mapping[str, float]
    rows: int


def judge_missing(
    splits: Mapping[str, Missing],
    before: Missing | None,
    columns: Collection[str],
    settings: DataGateSettings,
) -> Iterator[Verdict]:
    """Judges how far the share of missing values of a column moves from train, and in train since the last data.

    Args:
      splits: by name, train among them; a column that a split lacks has no value there.
      before: of the train split accepted before, if any; a column that it lacks is new and is not compared.
      columns: to judge.
      settings: the bound.

    Returns:
      A verdict for every change beyond the bound and beyond chance, or one that there is none.
    """
    train = splits[_TRAIN]
    bound = f"within {settings.max_missing_change:.0%}"
    widest, refused = 0.0, False
    for change in _missing_changes(splits, before, columns):
        size = abs(change.now - change.then)
        widest = max(widest, size)
        if size <= max(settings.max_missing_change, change.noise):
            continue
        refused = True
        words = (
            f"column {change.column!r} has no value in {change.now:.1%} of {change.told_now} and in {change.then:.1%} "
            f"of {change.told_then}, a change of more than data_gate.max_missing_change "
            f"{settings.max_missing_change:.0%}: find out what stopped (or began) to fill it"
        )
        name = f"missing values of {change.column} {change.where}"
        yield Verdict(name, Outcome.REFUSED, f"{change.now - change.then:+.1%}", bound, words)
    if not refused:
        compared = "train" if before is None or not train.rows else "train, nor in train since the last data"
        words = f"no column's share of missing values moves by more than {widest:.1%} from {compared}"
        yield Verdict("missing values", Outcome.PASSED, f"{widest:.1%}", bound, words)


@dataclass(frozen=True)
class _MissingChange:
    """Shares of missing values of one column in two sets of rows, and how a person calls them."""

    column: str
    where: str
    now: float
    told_now: str
    then: float
    told_then: str
    noise: float


def _missing_changes(
    splits: Mapping[str, Missing], before: Missing | None, columns: Collection[str]
) -> Iterator[_MissingChange]:
    train = splits[_TRAIN]
    if not train.rows:
        return
    for split, found in splits.items():
        if split == _TRAIN or not found.rows:
            continue
        noise = _noise(train.rows, found.rows)
        for column in columns:
            here, there = (one.shares.get(column, 1.0) for one in (found, train))
            yield _MissingChange(column, f"in {split}", here, f"the {split} split", there, "train", noise)
    if before is None or not before.rows:
        return
    noise = _noise(train.rows, before.rows)
    since = "since the data accepted before"
    for column in (name for name in columns if name in before.shares):
        now, then = train.shares.get(column, 1.0), before.shares[column]
        yield _MissingChange(column, since, now, "train", then, "the train split accepted before", noise)


def judge_new_values(
    new: Mapping[str, Mapping[str, NewValues]], settings: DataGateSettings
) -> Iterator[Verdict]:
    """Judges how many values of a column train has never seen.

    Args:
      new: by split, then by column.
      settings: the bound.

    Returns:
      A verdict for every column beyond the bound, or one that there is none.
    """
    largest, refused = 0.0, False
    for split, columns in new.items():
        for column, found in columns.items():
            largest = max(largest, found.share)
            if found.share <= settings.max_new_values:
                continue
            refused = True
            words = (
                f"{found.share:.1%} of the values of column {column!r} in the {split} split never occur in train "
                f"({', '.join(found.examples)}), more than data_gate.max_new_values {settings.max_new_values:.0%}: "
                "the model knows nothing of them; train on newer rows, or repair the values"
            )
            bound = f"at most {settings.max_new_values:.0%}"
            name = f"new values of {column} in {split}"
            yield Verdict(name, Outcome.REFUSED, f"{found.share:.1%}", bound, words)
    if not refused:
        words = f"at most {largest:.1%} of a column's values in a later split never occur in train"
        bound = f"at most {settings.max_new_values:.0%}"
        yield Verdict("new values", Outcome.PASSED, f"{largest:.1%}", bound, words)


def _noise(rows: int, others: int) -> float:
    """How far shares of two samples of one distribution may lie apart (Hoeffding, 1963)."""
    return float(np.sqrt(np.log(2 / _ALPHA) * (rows + others) / (2 * rows * others)))
