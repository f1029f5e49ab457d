"""Gaps between groups: how often each is chosen, found, or falsely accused, at the threshold that is used."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from gates.evidence import Gap
from gates.intervals import Bootstrap
from gates.metrics import Floats
from gates.settings import FairnessSettings
from gates.slices import values_of
from gates.verdict import Outcome, Verdict

Mask = npt.NDArray[np.bool_]

_FEWEST_COUNTED = 30
"""Rows of the kind that a rate is a share of, such as true positives: fewer tell nothing of a group."""


@dataclass(frozen=True)
class Decisions:
    """What was true and what was decided, `[rows]` each."""

    is_positive: Mask
    is_called: Mask

    def counted(self, metric: str) -> Mask:
        """The rows that a rate is a share of."""
        match metric:
            case "true_positive_rate":
                return self.is_positive
            case "false_positive_rate":
                return ~self.is_positive
            case _:
                return np.ones_like(self.is_positive)


def judge_fairness(
    settings: FairnessSettings, column: pd.Series, decisions: Decisions, min_rows: int, bootstrap: Bootstrap
) -> tuple[Gap, Verdict]:
    """Compares the groups with the largest and the smallest rate.

    Args:
      settings: what is compared and its bound.
      column: raw values of the rows.
      decisions: about the same rows.
      min_rows: smaller groups are shown and not judged.
      bootstrap: of the same rows.
    """
    names = values_of(column)
    groups = {name: np.asarray(names == name) for name in settings.groups or sorted(names.unique())}
    counted = decisions.counted(settings.metric)
    rates = {name: _rate(decisions.is_called, mask & counted) for name, mask in groups.items()}
    found = Gap(
        settings.column,
        settings.metric,
        {name: rate for name, rate in rates.items() if np.isfinite(rate)},
        {name: int(mask.sum()) for name, mask in groups.items()},
    )
    judged = [
        name
        for name, mask in groups.items()
        if mask.sum() >= min_rows and (mask & counted).sum() >= _FEWEST_COUNTED
    ]
    return found, _verdict(settings, rates, judged, groups, counted, decisions, bootstrap)


def _verdict(
    settings: FairnessSettings,
    rates: Mapping[str, float],
    judged: Sequence[str],
    groups: Mapping[str, Mask],
    counted: Mask,
    decisions: Decisions,
    bootstrap: Bootstrap,
) -> Verdict:
    rate, column = settings.metric.replace("_", " "), settings.column
    name, bound = f"fairness of {column}: {rate}", f"at most {settings.max_gap:g} apart, beyond the interval"
    if absent := [group for group in settings.groups if not groups[group].any()]:
        words = f"no test row has {column} = {', '.join(absent)}: model_gate.fairness names groups that are not there"
        return Verdict(name, Outcome.WARNED, "not measured", bound, words)
    if len(judged) < 2:
        words = f"{rate} by {column}: fewer than two groups have enough rows to be judged"
        return Verdict(name, Outcome.PASSED, "not judged", bound, words)
    resampled = {group: _rates(decisions.is_called, groups[group] & counted, bootstrap) for group in judged}
    # The best proven gap, not the widest: that of a small group may be wide by chance, and hide another.
    gaps = {
        (one, other): bootstrap.interval(resampled[one] - resampled[other])
        for one, other in itertools.permutations(judged, 2)
        if rates[one] >= rates[other]
    }
    most, least = max(gaps, key=lambda pair: gaps[pair][0])
    gap, (low, high) = rates[most] - rates[least], gaps[most, least]
    is_unfair = low > settings.max_gap
    words = (
        f"{rate} is {rates[most]:.3f} where {column} = {most} and {rates[least]:.3f} where {column} = {least}: "
        f"a gap of {gap:.3f} (between {low:.3f} and {high:.3f})"
    )
    if is_unfair:
        words += (
            f"; model_gate.fairness allows {settings.max_gap:g}: these groups are treated differently, "
            "look at their data before this model decides about them"
        )
    return Verdict(name, Outcome.of(not is_unfair), f"{gap:.3f}", bound, words)


def _rate(is_called: Mask, counted: Mask) -> float:
    return float(is_called[counted].mean()) if counted.any() else float("nan")


def _rates(is_called: Mask, counted: Mask, bootstrap: Bootstrap) -> Floats:
    weights = bootstrap.weights[counted]
    total = weights.sum(axis=0, dtype=np.float64)
    return np.asarray((is_called[counted].astype(np.float32) @ weights) / np.maximum(total, 1), np.float64)
