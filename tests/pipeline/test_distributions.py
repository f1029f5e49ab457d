"""TFDV's messages, made by hand, as the report shows them."""

from pathlib import Path
from typing import Any

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from pipeline import distributions
from pipeline.distributions import read_row_counts

WORDS = statistics_pb2.FeatureNameStatistics.STRING


def numbers(name: str, points: list[tuple[float, float, float]], missing: int = 0):
    feature = statistics_pb2.FeatureNameStatistics(type=statistics_pb2.FeatureNameStatistics.FLOAT)
    feature.path.step.append(name)
    stats = feature.num_stats
    stats.common_stats.num_non_missing = int(sum(count for *_, count in points))
    stats.common_stats.num_missing = missing
    histogram = stats.histograms.add(type=statistics_pb2.Histogram.STANDARD)
    for low, high, count in points:
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count)
    return feature


def words(name: str, counts: dict[str, float]):
    feature = statistics_pb2.FeatureNameStatistics(type=WORDS)
    feature.path.step.append(name)
    feature.string_stats.unique = len(counts)
    feature.string_stats.common_stats.num_non_missing = int(sum(counts.values()))
    for rank, (label, count) in enumerate(counts.items()):
        feature.string_stats.rank_histogram.buckets.add(
            low_rank=rank, high_rank=rank, label=label, sample_count=count
        )
    return feature


def write(folder: Path, split: str, *features, rows: int = 100) -> Path:
    place = folder / f"Split-{split}"
    place.mkdir(parents=True)
    found = statistics_pb2.DatasetFeatureStatisticsList()
    found.datasets.add(num_examples=rows).features.extend(features)
    (place / "FeatureStats.pb").write_bytes(found.SerializeToString())
    return folder


def read_columns(statistics: Path, anomalies: Path | None) -> tuple[Any, ...]:
    """As the function of that name; what kind a distribution is, each test knows."""
    return distributions.read_columns(statistics, anomalies)


def test_splits_with_different_bins_are_laid_over_the_same_ones(tmp_path):
    write(tmp_path, "test", numbers("age", [(0, 10, 50), (10, 20, 50)]))
    write(tmp_path, "train", numbers("age", [(0, 40, 100)]))
    [column] = read_columns(tmp_path, None)
    assert list(column.distribution.shares) == ["train", "test"]
    assert column.distribution.edges[::10] == (0, 20, 40)
    assert column.distribution.shares["train"] == pytest.approx([0.05] * 20)
    assert column.distribution.shares["test"] == pytest.approx([0.1] * 10 + [0.0] * 10)


def test_a_far_outlier_is_gathered_in_the_last_bin_and_shares_still_sum_to_one(tmp_path):
    write(tmp_path, "train", numbers("fare", [(0, 10, 990), (10, 100_000, 10)]))
    [column] = read_columns(tmp_path, None)
    assert column.distribution.is_open_above
    assert not column.distribution.is_open_below
    assert column.distribution.edges[-1] < 30
    assert sum(column.distribution.shares["train"]) == pytest.approx(1.0)
    assert column.distribution.shares["train"][-1] >= 0.009


def test_a_single_value_still_has_a_histogram(tmp_path):
    write(tmp_path, "train", numbers("version", [(3, 3, 100)]))
    [column] = read_columns(tmp_path, None)
    assert column.distribution.edges[0] < 3 < column.distribution.edges[-1]
    assert sum(column.distribution.shares["train"]) == pytest.approx(1.0)


def test_whole_numbers_get_a_bin_each(tmp_path):
    feature = numbers(
        "day", [(1, 1.6, 10), (1.6, 2.2, 20), (2.2, 2.8, 0), (2.8, 4, 30), (4, 6.4, 39), (6.4, 7, 1)]
    )
    feature.type = statistics_pb2.FeatureNameStatistics.INT
    feature.num_stats.min, feature.num_stats.max = 1, 7
    write(tmp_path, "train", feature)
    [column] = read_columns(tmp_path, None)
    assert column.distribution.is_whole
    assert column.distribution.edges[:2] == (0.5, 1.5)
    assert column.distribution.shares["train"] == pytest.approx((0.1, 0.2, 0.3, 0.13, 0.13, 0.13, 0.01))


def test_missing_values_are_a_share_of_the_rows_and_a_column_without_values_is_not_drawn(tmp_path):
    write(tmp_path, "train", numbers("age", [(0, 1, 75)], missing=25), numbers("empty", [], missing=100))
    age, empty = read_columns(tmp_path, None)
    assert age.missing == {"train": 0.25}
    assert empty.missing == {"train": 1.0}
    assert empty.distribution is None
    assert empty.figures["mean"] == {}


def test_a_value_that_only_one_split_has_is_shown_with_none_in_the_others(tmp_path):
    write(tmp_path, "train", words("paid", {"cash": 60, "card": 40}))
    write(tmp_path, "test", words("paid", {"crypto": 90, "cash": 10}))
    [column] = read_columns(tmp_path, None)
    assert column.distribution.values == ("crypto", "cash", "card")
    assert column.distribution.shares == {"train": (0.0, 0.6, 0.4), "test": (0.9, 0.1, 0.0)}
    assert column.figures["different values"] == {"train": 2.0, "test": 2.0}


def test_a_key_is_counted_but_not_drawn(tmp_path):
    write(tmp_path, "train", words("order", {f"order {number}": 1 for number in range(1000)}))
    [column] = read_columns(tmp_path, None)
    assert column.distribution is None
    assert column.figures["different values"] == {"train": 1000.0}


def test_anomalies_go_with_their_column_even_where_the_data_lack_it(tmp_path):
    write(tmp_path / "s", "train", words("paid", {"cash": 60}))
    place = tmp_path / "a" / "Split-train"
    place.mkdir(parents=True)
    found = anomalies_pb2.Anomalies()
    for name in ("paid", "gone"):
        found.anomaly_info[name].short_description = "Odd"
        found.anomaly_info[name].description = f"{name} is odd."
    (place / "SchemaDiff.pb").write_bytes(found.SerializeToString())
    paid, gone = read_columns(tmp_path / "s", tmp_path / "a")
    assert [(a.split, a.text) for a in paid.anomalies] == [("train", "Odd: paid is odd.")]
    assert (gone.name, gone.distribution, len(gone.anomalies)) == ("gone", None, 1)


def test_rows_are_counted_by_split_in_the_order_of_use(tmp_path):
    for split, rows in (("test", 3), ("validation", 2), ("train", 1)):
        write(tmp_path, split, rows=rows)
    assert list(read_row_counts(tmp_path).items()) == [("train", 1), ("validation", 2), ("test", 3)]


def test_a_whole_number_on_the_wrong_side_of_a_rounding_keeps_its_rows(tmp_path):
    feature = numbers("day", [(1, 1.6, 10), (1.6, 2.2, 20), (2.2, 3.4, 30), (3.4, 4 - 1e-13, 40)])
    feature.type = statistics_pb2.FeatureNameStatistics.INT
    feature.num_stats.min, feature.num_stats.max = 1, 5
    feature.num_stats.histograms[0].buckets.add(low_value=4, high_value=5, sample_count=0)
    write(tmp_path, "train", feature)
    [column] = read_columns(tmp_path, None)
    assert column.distribution.shares["train"] == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.0))
