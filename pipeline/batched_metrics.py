"""TFMA's metrics for whole batches instead of single rows, and the extractor that slices batches as batches.

TFMA calls every metric once a row and slice, which takes five times as long as reading the rows and predicting.
Each metric that a configuration can name is a function of sums over rows, so here the rows of a batch that share a
slice are added up at once. The values are those of TFMA and Keras: `tests/pipeline/test_batched_metrics.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.extractors import slice_key_extractor, unbatch_extractor
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.slicer import slicer_lib
from tensorflow_model_analysis.utils import util

Floats = npt.NDArray[np.float64]
Sums = Callable[[Floats, Floats], Floats]
"""From labels [rows] and predictions [rows, outputs] to sums over the rows [any number]."""
Value = Callable[[Floats], float]
"""From the sums over all rows to the metric."""

_SLICES = slice_key_extractor.SLICE_KEY_EXTRACTOR_STAGE_NAME
_BY_ROW = (unbatch_extractor.UNBATCH_EXTRACTOR_STAGE_NAME, _SLICES)

_EPSILON = np.float32(1e-7)
"""How far Keras keeps a probability from 0 and 1 before it takes the logarithm."""
_BUCKETS = 10_000
"""Buckets of a probability and thresholds of a curve, as many as in TFMA."""
_THRESHOLDS = np.linspace(0.0, 1.0, _BUCKETS)


def custom_extractors(
    eval_shared_model: Any, eval_config: tfma.EvalConfig, tensor_adapter_config: Any
) -> list[tfma.extractors.Extractor]:
    """TFMA's extractors, but for the one that slices; the Evaluator of TFX looks for this name."""
    stock = tfma.default_extractors(
        eval_shared_model=eval_shared_model,
        eval_config=eval_config,
        tensor_adapter_config=tensor_adapter_config,
    )
    specs = tuple(slicer_lib.SingleSliceSpec(spec=spec) for spec in eval_config.slicing_specs)
    columns = frozenset(column for spec in eval_config.slicing_specs for column in spec.feature_keys)
    slices = tfma.extractors.Extractor(
        stage_name=_SLICES, ptransform=beam.FlatMap(slice_batch, specs, columns)
    )
    return [*(extractor for extractor in stock if extractor.stage_name not in _BY_ROW), slices]


def slice_batch(
    batch: tfma.Extracts, specs: Sequence[slicer_lib.SingleSliceSpec], columns: Collection[str]
) -> Iterator[tfma.Extracts]:
    """Labels and predictions of a batch, once for each slice that has rows in it.

    Args:
      batch: what the extractors before this one found in some rows.
      specs: the slices.
      columns: the raw columns that the slices look at.

    Raises:
      ValueError: if a row has no label.
    """
    labels, predictions = (_dense(batch[key]) for key in (tfma.LABELS_KEY, tfma.PREDICTIONS_KEY))
    values = {name: value for name, value in batch[tfma.FEATURES_KEY].items() if name in columns}
    features = util.split_extracts(values) if values else [{}] * _rows(labels)
    rows: dict[Any, list[int]] = {}
    for row, feature in enumerate(features):
        for key in set(slicer_lib.get_slices_for_features_dicts([], feature, specs)):
            rows.setdefault(key, []).append(row)
    for key, taken in rows.items():
        yield {
            tfma.SLICE_KEY_TYPES_KEY: slicer_lib.slice_keys_to_numpy_array([key]),
            tfma.LABELS_KEY: _take(labels, taken),
            tfma.PREDICTIONS_KEY: _take(predictions, taken),
        }


class _SumsCombiner(beam.CombineFn):
    """Adds up the sums of all batches of a slice."""

    def __init__(self, key: metric_types.MetricKey, eval_config: tfma.EvalConfig, formula: _Formula):
        self._key = key
        self._eval_config = eval_config
        self._formula = formula

    def create_accumulator(self) -> Floats:
        return np.zeros(1)  # broadcast by the first batch, whatever the number of sums

    def add_input(self, accumulator: Floats, element: metric_types.StandardMetricInputs) -> Floats:
        for label, prediction, _ in metric_util.to_label_prediction_example_weight(
            element,
            eval_config=self._eval_config,
            model_name=self._key.model_name,
            flatten=False,
            squeeze=False,
        ):
            if not np.isfinite(prediction).all():
                rows = int((~np.isfinite(prediction.reshape(len(prediction), -1)).all(axis=1)).sum())
                raise ValueError(f"the model answers NaN or infinity for {rows} rows of a batch")
            labels = label.astype(np.float64).reshape(-1)
            accumulator = accumulator + self._formula.sums(
                labels, prediction.astype(np.float64).reshape(len(labels), -1)
            )
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Floats]) -> Floats:
        return sum(accumulators, start=np.zeros(1))

    def extract_output(self, accumulator: Floats) -> Mapping[metric_types.MetricKey, float]:
        return {self._key: self._formula.value(accumulator)}


@dataclass(frozen=True)
class _Formula:
    """A metric: what to add up over rows, and what follows from it."""

    sums: Sums
    value: Value


class BatchedMetric(metric_types.Metric):
    """The metric of one of the formulas below.

    Args:
      name: what it is called in the results.
      formula: a key of `_FORMULAS`. TFMA looks for its own metrics first, so the class has a name unknown to it.
      code: digest of this module; only there to be part of the Evaluator's cache key.
    """

    def __init__(self, name: str, formula: str, code: str = ""):
        del code
        super().__init__(functools.partial(_computations, _FORMULAS[formula]), name=name)


def _computations(
    formula: _Formula, name: str, eval_config: tfma.EvalConfig, model_names: Sequence[str]
) -> list[metric_types.MetricComputation]:
    keys = (metric_types.MetricKey(name=name, model_name=model) for model in model_names)
    return [
        metric_types.MetricComputation(
            keys=[key], preprocessors=None, combiner=_SumsCombiner(key, eval_config, formula)
        )
        for key in keys
    ]


def _number(labels: Floats, _: Floats) -> Floats:
    """Of a count: the number of rows."""
    return np.array([len(labels)], np.float64)


def _total(values: npt.NDArray[Any]) -> Floats:
    """Of a mean: the sum of the values, and their number."""
    return np.array([values.sum(dtype=np.float64), len(values)])


def _pair(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Floats:
    """Of a ratio: the two sums."""
    return np.array([above.sum(), below.sum()], np.float64)


def _ratio(sums: Floats) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def _binary_log_losses(labels: Floats, predictions: Floats) -> Floats:
    # In 32 bits as in Keras: of a score that is wrong and certain, the loss depends on it.
    score = np.clip(predictions[:, 0].astype(np.float32), _EPSILON, np.float32(1) - _EPSILON)
    return _total(-np.where(labels > 0.5, np.log(score + _EPSILON), np.log(1 - score + _EPSILON)))


def _categorical_log_losses(labels: Floats, predictions: Floats) -> Floats:
    scores = np.clip(predictions.astype(np.float32), _EPSILON, np.float32(1) - _EPSILON)
    given = scores[np.arange(len(labels)), labels.astype(np.int64)]
    return _total(np.log(scores.sum(axis=1)) - np.log(given))


def _by_threshold(labels: Floats, predictions: Floats) -> Floats:
    """Negatives, then positives, by the highest threshold that they are above, flattened: [2 * thresholds].

    As in TFMA a prediction is first rounded down to its bucket, so that the curve is the same.
    """
    buckets = np.floor(np.clip(predictions[:, 0], 0.0, 1.0) * _BUCKETS) / _BUCKETS
    places = np.searchsorted(_THRESHOLDS, buckets, side="right") - 1
    places += _BUCKETS * labels.astype(np.int64)
    return np.bincount(places, minlength=2 * _BUCKETS).astype(np.float64)


def _above(sums: Floats) -> tuple[Floats, Floats]:
    """False and true positives at each threshold, and none above the last."""
    negatives, positives = sums.reshape(2, _BUCKETS)[:, ::-1].cumsum(axis=1)[:, ::-1]
    return np.append(negatives, 0.0), np.append(positives, 0.0)


def _roc_area(sums: Floats) -> float:
    false, true = _above(sums)
    if not (false[0] and true[0]):
        return 0.0
    return float(-np.trapezoid(true / true[0], false / false[0]))


def _precision_recall_area(sums: Floats) -> float:
    false, true = _above(sums)
    above = false + true
    gained, added = -np.diff(true), -np.diff(above)
    used = added > 0
    slope = gained[used] / added[used]
    before, after = above[:-1][used], above[1:][used]
    intercept = true[1:][used] - slope * after
    grown = np.log(np.divide(before, after, out=np.ones_like(after), where=after > 0))
    return float((slope * (gained[used] + intercept * grown)).sum() / true[0]) if true[0] else 0.0


_FORMULAS: Mapping[str, _Formula] = {
    "example_count": _Formula(_number, lambda sums: float(sums[0])),
    "auc": _Formula(_by_threshold, _roc_area),
    "auc_precision_recall": _Formula(_by_threshold, _precision_recall_area),
    "binary_log_loss": _Formula(_binary_log_losses, _ratio),
    "categorical_log_loss": _Formula(_categorical_log_losses, _ratio),
    "binary_accuracy": _Formula(lambda y, p: _total((p[:, 0] > 0.5) == (y > 0.5)), _ratio),
    "categorical_accuracy": _Formula(lambda y, p: _total(p.argmax(axis=1) == y), _ratio),
    "precision": _Formula(lambda y, p: _pair(y * (p[:, 0] > 0.5), p[:, 0] > 0.5), _ratio),
    "recall": _Formula(lambda y, p: _pair(y * (p[:, 0] > 0.5), y), _ratio),
    "calibration": _Formula(lambda y, p: _pair(p[:, 0], y), _ratio),
    "mean_squared_error": _Formula(lambda y, p: _total((p[:, 0] - y) ** 2), _ratio),
    "mean_absolute_error": _Formula(lambda y, p: _total(np.abs(p[:, 0] - y)), _ratio),
}


def _dense(values: Any) -> Any:
    """Arrays [rows, ...] of labels or predictions, in a mapping where the models or outputs are several."""
    if isinstance(values, Mapping):
        return {key: _dense(value) for key, value in values.items()}
    if isinstance(values, tfma.types.VarLenTensorValue):
        if len(values.values) != values.dense_shape[0]:
            raise ValueError(
                f"{values.dense_shape[0]} rows have {len(values.values)} labels: a row to evaluate needs one"
            )
        return values.values
    return util.to_numpy(values)


def _rows(values: Any) -> int:
    return _rows(next(iter(values.values()))) if isinstance(values, Mapping) else len(values)


def _take(values: Any, rows: Sequence[int]) -> Any:
    if isinstance(values, Mapping):
        return {key: _take(value, rows) for key, value in values.items()}
    return values[rows]
