"""Rows that a rule sets aside: which anomalies can be told of a single row, and how.

TFDV says of a column that it holds a wrong value, not in which rows; here each row is looked at. Kinds are named as
TFDV names them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tensorflow_metadata.proto.v0 import schema_pb2

from gates.settings import AnomalyRule
from gates.verdict import Outcome, Verdict

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]

_ANY = "*"


@dataclass(frozen=True)
class Check:
    """What must hold of one column in every row.

    Attributes:
      column: its name.
      kind: TFDV's name of the anomaly.
      told: what is wrong with a row that fails, after the column's name.
      wrong_values: from values to those that are wrong, for checks of values.
      wrong_counts: from how many values each row has to the rows that are wrong, for checks of presence.
    """

    column: str
    kind: str
    told: str
    wrong_values: Callable[[Values], Mask] | None = None
    wrong_counts: Callable[[Values], Mask] | None = None

    def wrong_rows(self, rows: Values, values: Values, total: int) -> Mask:
        """Which of `total` rows fail.

        Args:
          rows: `[values]`: the row of each value, ascending.
          values: `[values]`: int64, float32 or bytes objects.
          total: number of rows.
        """
        if self.wrong_counts is not None:
            return self.wrong_counts(np.bincount(rows, minlength=total))
        assert self.wrong_values is not None, "a check is of values or of counts"
        failed = np.zeros(total, np.bool_)
        failed[rows[self.wrong_values(values)]] = True
        return failed


def rule_faults(rules: Sequence[AnomalyRule]) -> Iterator[str]:
    """What is wrong with rules that set rows aside: a kind that is not of single rows; one line each."""
    for place, rule in enumerate(rules):
        if rule.action == "quarantine" and rule.kind != _ANY and rule.kind not in _CHECKS:
            close = difflib.get_close_matches(rule.kind, _CHECKS, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            yield (
                f"data_gate.rules.{place}.kind: {rule.kind!r} is no anomaly of single rows, so none can be set aside; "
                f"{hint}these can: {', '.join(_CHECKS)}"
            )


def checks(schema: schema_pb2.Schema, rules: Sequence[AnomalyRule]) -> tuple[Check, ...]:
    """What every row has to keep, or be set aside: what the schema says and a rule has named `quarantine`."""
    found = []
    for column in map(_with_own_domain(schema), schema.feature):
        for kind, build in _CHECKS.items():
            rule = next(
                (r for r in rules if r.column in (_ANY, column.name) and r.kind in (_ANY, kind)), None
            )
            if rule is None or rule.action != "quarantine":
                continue
            check = build(column)
            if check is not None:
                found.append(check)
    return tuple(found)


def _with_own_domain(schema: schema_pb2.Schema) -> Callable[[schema_pb2.Feature], schema_pb2.Feature]:
    """Gives a column the values of the domain that it shares with others."""
    shared = {domain.name: domain for domain in schema.string_domain}

    def own(column: schema_pb2.Feature) -> schema_pb2.Feature:
        if column.WhichOneof("domain_info") != "domain" or column.domain not in shared:
            return column
        copy = schema_pb2.Feature()
        copy.CopyFrom(column)
        copy.string_domain.CopyFrom(shared[column.domain])
        return copy

    return own


@dataclass(frozen=True)
class SetAside:
    """What is set aside of a split.

    Attributes:
      rows: how many there were.
      aside: how many of them are set aside.
      reasons: rows by what is wrong with them; a row may be wrong in several ways.
    """

    rows: int
    aside: int
    reasons: Mapping[str, int]


def judge_set_aside(found: Mapping[str, SetAside], most: float) -> tuple[Verdict, ...]:
    """Judges how many rows are set aside.

    Args:
      found: by split.
      most: largest share of a split.
    """
    verdicts = []
    for split, its in found.items():
        aside, total, reasons = its.aside, its.rows, its.reasons
        share = aside / total if total else 0.0
        passed = share <= most
        words = f"{aside:,} of {total:,} rows of the {split} split are set aside"
        if reasons:
            words += f" ({', '.join(f'{told}: {count:,}' for told, count in reasons.items())})"
        if not passed:
            words += (
                f", {share:.1%} and more than data_gate.max_quarantined {most:.1%}: so many are no stray rows; repair "
                "the source or correct the schema"
            )
        verdicts.append(
            Verdict(
                f"rows set aside in {split}", Outcome.of(passed), f"{share:.1%}", f"at most {most:.1%}", words
            )
        )
    return tuple(verdicts)


_Build = Callable[[schema_pb2.Feature], Check | None]


def _not_in_domain(column: schema_pb2.Feature) -> Check | None:
    if column.WhichOneof("domain_info") != "string_domain":
        return None
    known = [value.encode() for value in column.string_domain.value]
    # TFDV lets a share of the values lie outside; which ones nobody can say.
    told = "a value that the schema does not list"
    return Check(
        column.name, "ENUM_TYPE_UNEXPECTED_STRING_VALUES", told, lambda values: ~pd.Index(values).isin(known)
    )


def _beyond(kind: str, is_above: bool) -> _Build:
    def build(column: schema_pb2.Feature) -> Check | None:
        limit = _limit(column, kind.partition("_")[0], is_above)
        if limit is None:
            return None
        told = f"{'above' if is_above else 'below'} {limit:g}"
        return Check(column.name, kind, told, lambda values: values > limit if is_above else values < limit)

    return build


def _limit(column: schema_pb2.Feature, family: str, is_above: bool) -> float | None:
    domain = column.WhichOneof("domain_info")
    side = "max" if is_above else "min"
    if domain == "bool_domain" and family == "BOOL" and column.type == schema_pb2.INT:
        return 1 if is_above else 0
    wanted = {"INT": "int_domain", "FLOAT": "float_domain"}.get(family)
    if domain != wanted or wanted is None or not getattr(column, wanted).HasField(side):
        return None
    return (
        float(getattr(getattr(column, wanted), side))
        if family == "FLOAT"
        else getattr(getattr(column, wanted), side)
    )


def _not_finite(kind: str, flag: str, told: str, wrong: Callable[[Values], Mask]) -> _Build:
    def build(column: schema_pb2.Feature) -> Check | None:
        is_asked = column.WhichOneof("domain_info") == "float_domain" and getattr(column.float_domain, flag)
        return Check(column.name, kind, told, wrong) if is_asked else None

    return build


def _missing(kind: str) -> _Build:
    def build(column: schema_pb2.Feature) -> Check | None:
        if column.presence.min_fraction < 1.0:
            return None
        return Check(column.name, kind, "no value", wrong_counts=lambda counts: counts == 0)

    return build


def _too_many(column: schema_pb2.Feature) -> Check | None:
    most = column.value_count.max
    if not most:
        return None
    kind, told = "FEATURE_TYPE_HIGH_NUMBER_VALUES", f"more than {most} values"
    return Check(column.name, kind, told, wrong_counts=lambda counts: counts > most)


def _too_few(column: schema_pb2.Feature) -> Check | None:
    fewest = column.value_count.min
    if fewest < 2:  # a row without any is a missing value
        return None
    kind, told = "FEATURE_TYPE_LOW_NUMBER_VALUES", f"fewer than {fewest} values"
    return Check(column.name, kind, told, wrong_counts=lambda counts: (counts > 0) & (counts < fewest))


_CHECKS: Mapping[str, _Build] = {
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES": _not_in_domain,
    "INT_TYPE_BIG_INT": _beyond("INT_TYPE_BIG_INT", is_above=True),
    "INT_TYPE_SMALL_INT": _beyond("INT_TYPE_SMALL_INT", is_above=False),
    "BOOL_TYPE_BIG_INT": _beyond("BOOL_TYPE_BIG_INT", is_above=True),
    "BOOL_TYPE_SMALL_INT": _beyond("BOOL_TYPE_SMALL_INT", is_above=False),
    "FLOAT_TYPE_BIG_FLOAT": _beyond("FLOAT_TYPE_BIG_FLOAT", is_above=True),
    "FLOAT_TYPE_SMALL_FLOAT": _beyond("FLOAT_TYPE_SMALL_FLOAT", is_above=False),
    "FLOAT_TYPE_HAS_NAN": _not_finite("FLOAT_TYPE_HAS_NAN", "disallow_nan", "not a number", np.isnan),
    "FLOAT_TYPE_HAS_INF": _not_finite("FLOAT_TYPE_HAS_INF", "disallow_inf", "infinite", np.isinf),
    "FEATURE_TYPE_LOW_FRACTION_PRESENT": _missing("FEATURE_TYPE_LOW_FRACTION_PRESENT"),
    "FEATURE_TYPE_LOW_NUMBER_VALUES": _too_few,
    "FEATURE_TYPE_HIGH_NUMBER_VALUES": _too_many,
}
