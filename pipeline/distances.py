"""TFDV's distances between the columns of two sets of statistics.

TFDV measures drift for columns of a schema that have a comparator, so it is given a copy of the schema with one for
each. The quantiles of the statistics make the better histogram: the equal bins of the other kind are spread by one
outlier, and two samples of one distribution came out 0.3 apart, a column of zeros and a few others 1.0.
"""

from __future__ import annotations

from collections.abc import Collection

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from gates.drift import JENSEN_SHANNON, L_INFINITY, Distance, deciles

_MEASURES = {
    anomalies_pb2.DriftSkewInfo.Measurement.L_INFTY: L_INFINITY,
    anomalies_pb2.DriftSkewInfo.Measurement.JENSEN_SHANNON_DIVERGENCE: JENSEN_SHANNON,
}
_BINS = 20
"""Ranges that the deciles of two columns make between them."""


def distances(
    here: statistics_pb2.DatasetFeatureStatisticsList,
    there: statistics_pb2.DatasetFeatureStatisticsList,
    schema: schema_pb2.Schema,
    columns: Collection[str],
) -> tuple[Distance, ...]:
    """Measures how far columns lie apart.

    Args:
      here: statistics of one split.
      there: of what it is compared with.
      schema: of both.
      columns: which; one that either side lacks, or has no value of, is left out.
    """
    ours, theirs = _columns(here), _columns(there)
    comparable = [
        name
        for name in columns
        if name in ours and name in theirs and min(_present(ours[name]), _present(theirs[name]))
    ]
    compared = _with_comparators(schema, {name: ours[name] for name in comparable})
    found = tfdv.validate_statistics(here, compared, previous_statistics=there).drift_skew_info
    values = {
        ".".join(one.path.step): measurement
        for one in found
        for measurement in one.drift_measurements
        if measurement.type in _MEASURES
    }
    return tuple(
        _distance(name, ours[name], theirs[name], values[name]) for name in comparable if name in values
    )


def _distance(
    name: str,
    here: statistics_pb2.FeatureNameStatistics,
    there: statistics_pb2.FeatureNameStatistics,
    measured: anomalies_pb2.DriftSkewInfo.Measurement,
) -> Distance:
    measure = _MEASURES[measured.type]
    of_here, of_there = deciles(here), deciles(there)
    return Distance(
        column=name,
        measure=measure,
        value=float(measured.value),
        rows=(_present(here), _present(there)),
        values=max(here.string_stats.unique, there.string_stats.unique, 2)
        if measure == L_INFINITY
        else _BINS,
        deciles=(of_here, of_there) if of_here and of_there else None,
    )


def _with_comparators(
    schema: schema_pb2.Schema, columns: dict[str, statistics_pb2.FeatureNameStatistics]
) -> schema_pb2.Schema:
    """A schema of nothing but how to compare; the bounds are held elsewhere."""
    compared = schema_pb2.Schema()
    for feature in schema.feature:
        if feature.name not in columns:
            continue
        added = compared.feature.add(name=feature.name, type=feature.type)
        # Statistics made without a schema count no values of integers, not even of those that are names.
        if columns[feature.name].HasField("string_stats"):
            added.drift_comparator.infinity_norm.threshold = 1.0
        else:
            added.drift_comparator.jensen_shannon_divergence.threshold = 1.0
            source = added.drift_comparator.jensen_shannon_divergence.source
            source.type = schema_pb2.HistogramSelection.QUANTILES
    return compared


def _columns(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    if not statistics.datasets:
        return {}
    return {".".join(one.path.step) or one.name: one for one in statistics.datasets[0].features}


def _present(column: statistics_pb2.FeatureNameStatistics) -> int:
    kind = column.num_stats if column.HasField("num_stats") else column.string_stats
    return int(kind.common_stats.num_non_missing)
