"""What a network owes to its features: how much worse it is when it is trained without some of them.

Two things vary: which rows it is judged on, and with which seeds it was trained. The interval counts both: each
resample draws rows (`gates.intervals`) and, of each side's trainings, with replacement, one fewer than there are
(Rao and Wu, "Resampling inference with complex survey data", 1988: as many would understate the spread of so few).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass

import numpy as np
from pydantic.dataclasses import dataclass

from gates.intervals import Bootstrap
from gates.metrics import Floats, Metric


@dataclass(frozen=True)
class Contribution:
    """What some features add.

    Attributes:
      name: of the group, or of the only feature.
      features: those that were left out.
      without: the metric without them, the mean over the seeds.
      gain: how much better the metric is with them; negative where they do harm.
      low: lower end of its interval, over rows and seeds.
      high: upper end.
      by_seed: the gain with each seed alone, in the order of `Ablation.seeds`.
    """

    name: str
    features: tuple[str, ...]
    without: float
    gain: float
    low: float
    high: float
    by_seed: tuple[float, ...]

    @property
    def is_sure(self) -> bool:
        """Whether the features matter, one way or the other, beyond the interval."""
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Ablation:
    """The network trained whole and without features.

    Attributes:
      metric: its name.
      is_higher_better: whether more of it is better.
      split: on whose rows it was measured.
      rows: how many.
      level: of the intervals.
      seeds: of the trainings.
      epochs: the most of each training.
      whole: the metric with all features, the mean over the seeds.
      whole_by_seed: with each seed alone.
      planned: how many groups were to be left out; those that are missing were not finished.
      contributions: the largest gain first.
    """

    metric: str
    is_higher_better: bool
    split: str
    rows: int
    level: float
    seeds: tuple[int, ...]
    epochs: int
    whole: float
    whole_by_seed: tuple[float, ...]
    planned: int
    contributions: tuple[Contribution, ...]


@plain_dataclass(frozen=True)
class Judge:
    """Measures networks on the same rows.

    Attributes:
      metric: what is measured.
      truth: `[rows]`: index of the class, or the target.
      bootstrap: of these rows.
    """

    metric: Metric
    truth: Floats
    bootstrap: Bootstrap

    def trainings(self, scores: Sequence[Floats]) -> Trainings:
        """Measures trainings by their answers, one entry a seed: `[rows, classes]` or `[rows]`."""
        found = [self.metric.prepare(self.truth, one) for one in scores]
        resampled = np.stack([one.weighted(self.bootstrap.weights) for one in found])
        return Trainings(tuple(one.value for one in found), resampled)

    def contribution(
        self, name: str, features: Sequence[str], whole: Trainings, without: Trainings
    ) -> Contribution:
        """Compares the whole network with one that lacks features; both have the same number of trainings."""
        sign = 1.0 if self.metric.is_higher_better else -1.0
        by_seed = tuple(
            sign * (ours - theirs) for ours, theirs in zip(whole.values, without.values, strict=True)
        )
        random = np.random.default_rng(1)
        gains = sign * (whole.drawn(random) - without.drawn(random))
        low, high = self.bootstrap.interval(gains)
        gain = float(np.mean(by_seed))
        return Contribution(name, tuple(features), float(np.mean(without.values)), gain, low, high, by_seed)


@plain_dataclass(frozen=True)
class Trainings:
    """The metric of one network, trained with several seeds.

    Attributes:
      values: on the rows as they are, one a seed.
      resampled: `[seeds, resamples]`.
    """

    values: tuple[float, ...]
    resampled: Floats

    def drawn(self, random: np.random.Generator) -> Floats:
        """`[resamples]`: the mean over the trainings that each resample draws, centred as the mean over all is."""
        seeds, resamples = self.resampled.shape
        chosen = random.integers(seeds, size=(max(1, seeds - 1), resamples))
        return np.asarray(np.take_along_axis(self.resampled, chosen, axis=0).mean(axis=0))
