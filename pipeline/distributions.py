"""TFDV's statistics and anomalies of the splits as the report shows them. Knows the messages, not TFDV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from ingest.splits import SPLITS
from report.page import Anomaly, Column, Histogram, TopValues

_HAIR = 1e-6
_STATISTICS_FILE = "FeatureStats.pb"
_ANOMALIES_FILE = "SchemaDiff.pb"
_BINS = 20
_TOP = 8
_TELLING_SHARE = 0.002
"""A column whose most frequent value is rarer is a name for each row: its values tell nothing."""
_MOST_WHOLE = 40
"""Whole numbers over a range not longer than this get a bin each."""
_TAIL = 1.5
"""A histogram ends this many times the range of the middle eight tenths beyond them: a far outlier must not squeeze
all the others into one bar."""

Features = Mapping[str, statistics_pb2.FeatureNameStatistics]


def read_row_counts(statistics: Path) -> dict[str, int]:
    """Rows by split."""
    return {split: int(found.num_examples) for split, found in _datasets(statistics)}


def read_columns(statistics: Path, anomalies: Path | None) -> tuple[Column, ...]:
    """Every column that any split has, in the order of the first split.

    Args:
      statistics: folder of a StatisticsGen's artifact.
      anomalies: folder of an ExampleValidator's artifact, if there is one.
    """
    by_split = {split: _features(found) for split, found in _datasets(statistics)}
    names = dict.fromkeys(name for features in by_split.values() for name in features)
    found = dict.fromkeys(names, ()) | (_anomalies(anomalies) if anomalies else {})
    return tuple(
        _column(
            name,
            {split: features[name] for split, features in by_split.items() if name in features},
            found.get(name, ()),
        )
        for name in dict.fromkeys([*names, *found])
    )


def _datasets(folder: Path) -> Iterator[tuple[str, statistics_pb2.DatasetFeatureStatistics]]:
    for split, path in _by_split(folder, _STATISTICS_FILE):
        datasets = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes()).datasets
        if datasets:  # one entry a slice, all rows first; an empty split may have none
            yield split, datasets[0]


def _by_split(folder: Path, name: str) -> list[tuple[str, Path]]:
    found = {path.parent.name.removeprefix("Split-"): path for path in folder.glob(f"Split-*/{name}")}
    order = [*(split for split in SPLITS if split in found), *sorted(found.keys() - set(SPLITS))]
    return [(split, found[split]) for split in order]


def _features(dataset: statistics_pb2.DatasetFeatureStatistics) -> Features:
    return {".".join(feature.path.step) or feature.name: feature for feature in dataset.features}


def _anomalies(folder: Path) -> dict[str, tuple[Anomaly, ...]]:
    found: dict[str, tuple[Anomaly, ...]] = {}
    for split, path in _by_split(folder, _ANOMALIES_FILE):
        message = anomalies_pb2.Anomalies.FromString(path.read_bytes())
        for name, info in sorted(message.anomaly_info.items()):
            column = ".".join(info.path.step) or name
            words = f"{info.short_description}: {info.description.strip()}"
            found[column] = (*found.get(column, ()), Anomaly(split, words))
    return found


def _column(name: str, features: Features, anomalies: tuple[Anomaly, ...]) -> Column:
    """One column of all splits; `features` are by split."""
    kinds = {feature.WhichOneof("stats") for feature in features.values()}
    distribution: Histogram | TopValues | None = None
    figures: Mapping[str, Mapping[str, float]] = {}
    if kinds == {"num_stats"}:
        distribution, figures = _histogram(features), _number_figures(features)
    elif kinds == {"string_stats"}:
        distribution, figures = _top_values(features), _word_figures(features)
    missing = {split: _missing(feature) for split, feature in features.items()}
    return Column(name, distribution, missing, figures, anomalies)


def _missing(feature: statistics_pb2.FeatureNameStatistics) -> float:
    common = getattr(feature, feature.WhichOneof("stats")).common_stats
    rows = common.num_missing + common.num_non_missing
    return float(common.num_missing / rows) if rows else 0.0


def _number_figures(features: Features) -> dict[str, dict[str, float]]:
    names = {"smallest": "min", "median": "median", "mean": "mean", "largest": "max"}
    filled = {s: f.num_stats for s, f in features.items() if f.num_stats.common_stats.num_non_missing}
    return {
        shown: {split: float(getattr(stats, name)) for split, stats in filled.items()}
        for shown, name in names.items()
    }


def _word_figures(features: Features) -> dict[str, dict[str, float]]:
    return {
        "different values": {split: float(feature.string_stats.unique) for split, feature in features.items()}
    }


def _top_values(features: Features) -> TopValues | None:
    """The values that are frequent in any split; None where none is."""
    counted = {split: _word_counts(feature) for split, feature in features.items()}
    totals = {split: sum(counts.values()) for split, counts in counted.items()}
    shares = {
        split: {word: count / totals[split] for word, count in counts.items()}
        for split, counts in counted.items()
        if totals[split]
    }
    largest: dict[str, float] = {}
    for by_word in shares.values():
        for word, share in by_word.items():
            largest[word] = max(share, largest.get(word, 0.0))
    words = sorted(largest, key=lambda word: (-largest[word], word))[:_TOP]
    if not words or largest[words[0]] < _TELLING_SHARE:
        return None
    return TopValues(
        tuple(words),
        {split: tuple(by_word.get(word, 0.0) for word in words) for split, by_word in shares.items()},
    )


def _word_counts(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    return {bucket.label: bucket.sample_count for bucket in feature.string_stats.rank_histogram.buckets}


def _histogram(features: Features) -> Histogram | None:
    """Bins that all splits share, from TFDV's histograms, whose bins differ from split to split."""
    if (whole := _whole_numbers(features)) is not None:
        return whole
    cumulated = {
        split: found for split, feature in features.items() if (found := _cumulated(feature)) is not None
    }
    if not cumulated:
        return None
    low = min(float(places[0]) for places, _ in cumulated.values())
    high = max(float(places[-1]) for places, _ in cumulated.values())
    start, end = _main_range(list(cumulated.values()), low, high)
    if start == end:
        start, end = start - 0.5, end + 0.5
    edges = np.linspace(start, end, _BINS + 1)
    shares = {}
    for split, (places, below) in cumulated.items():
        at_edges = np.interp(edges, places, below, left=0.0, right=1.0)
        at_edges[0], at_edges[-1] = 0.0, 1.0
        shares[split] = tuple(float(share) for share in np.diff(at_edges))
    return Histogram(tuple(map(float, edges)), shares, is_open_below=low < start, is_open_above=high > end)


def _whole_numbers(features: Features) -> Histogram | None:
    """A bin for each whole number; None for other numbers, and where there would be many bins."""
    if any(feature.type != statistics_pb2.FeatureNameStatistics.INT for feature in features.values()):
        return None
    filled = {s: f.num_stats for s, f in features.items() if f.num_stats.common_stats.num_non_missing}
    if not filled:
        return None
    low = int(min(stats.min for stats in filled.values()))
    high = int(max(stats.max for stats in filled.values()))
    if high - low >= _MOST_WHOLE:
        return None
    shares = {split: _share_of_each(stats, low, high) for split, stats in filled.items()}
    if not all(shares.values()):
        return None
    edges = tuple(number - 0.5 for number in range(low, high + 2))
    return Histogram(edges, shares, is_whole=True)


def _share_of_each(stats: statistics_pb2.NumericStatistics, low: int, high: int) -> tuple[float, ...]:
    """The share of each whole number: a bucket's rows belong to the numbers in it, in equal parts."""
    counts = dict.fromkeys(range(low, high + 1), 0.0)
    for histogram in stats.histograms:
        if histogram.type != statistics_pb2.Histogram.STANDARD:
            continue
        for place, bucket in enumerate(histogram.buckets, 1):
            is_last = place == len(histogram.buckets)
            # A bucket ends before its high value, but for the last; rounding moves ends by a hair.
            first = math.ceil(bucket.low_value - _HAIR)
            last = (
                math.floor(bucket.high_value + _HAIR) if is_last else math.ceil(bucket.high_value - _HAIR) - 1
            )
            inside: Sequence[int] = range(max(first, low), min(last, high) + 1)
            if not inside and bucket.sample_count:  # What stands on an end, on the other side of a rounding.
                inside = (min(max(round(bucket.high_value), low), high),)
            for number in inside:
                counts[number] += bucket.sample_count / len(inside)
    total = sum(counts.values())
    return tuple(count / total for count in counts.values()) if total else ()


def _main_range(
    cumulated: Sequence[tuple[np.ndarray, np.ndarray]], low: float, high: float
) -> tuple[float, float]:
    tenths = [np.interp((0.1, 0.9), below, places) for places, below in cumulated]
    first, last = min(float(t[0]) for t in tenths), max(float(t[1]) for t in tenths)
    if first == last:
        return low, high
    reach = _TAIL * (last - first)
    return max(low, first - reach), min(high, last + reach)


def _cumulated(feature: statistics_pb2.FeatureNameStatistics) -> tuple[np.ndarray, np.ndarray] | None:
    """Places, ascending, and the share of values below each: from even bins and quantiles together."""
    points: list[tuple[float, float]] = []
    for histogram in feature.num_stats.histograms:
        buckets = [b for b in histogram.buckets if np.isfinite((b.low_value, b.high_value)).all()]
        total = sum(bucket.sample_count for bucket in buckets)
        if not total:
            continue
        seen = 0.0
        points.append((buckets[0].low_value, 0.0))
        for bucket in buckets:
            seen += bucket.sample_count
            points.append((bucket.high_value, seen / total))
    if not points:
        return None
    ordered = sorted(points)
    places = np.array([place for place, _ in ordered])
    # Both kinds are estimates and may contradict each other a little; a share below never falls.
    return places, np.maximum.accumulate(np.array([below for _, below in ordered]))
