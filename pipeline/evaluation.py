"""The Evaluator's configuration, and its results as plain data. TFMA is loaded when needed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gates.verdict import Outcome, Verdict
from pipeline.config import ConfigError, EvaluateConfig, MetricBound
from pipeline.source_digest import source_digest
from report.page import SliceRow
from schemas.features import DType, Label, LabelKind

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto import config_pb2

ALL_ROWS = "all rows"
NOT_COMPARED = "not_compared.json"
"""Beside an evaluation without a champion: the metrics with a bound against it, and why it was left out, if it was."""
BASELINE = "baseline"

_LOWER_IS_BETTER = frozenset({"log_loss", "mean_squared_error", "mean_absolute_error"})
_DEFAULT_METRICS: Mapping[LabelKind, tuple[str, ...]] = {
    LabelKind.BINARY: ("auc", "auc_precision_recall", "log_loss", "accuracy", "calibration"),
    LabelKind.MULTICLASS: ("accuracy", "log_loss"),
    LabelKind.REGRESSION: ("mean_squared_error", "mean_absolute_error", "calibration"),
}
_FITTING: Mapping[LabelKind, tuple[str, ...]] = {
    LabelKind.BINARY: (*_DEFAULT_METRICS[LabelKind.BINARY], "precision", "recall", "mean_squared_error"),
    LabelKind.MULTICLASS: _DEFAULT_METRICS[LabelKind.MULTICLASS],
    LabelKind.REGRESSION: _DEFAULT_METRICS[LabelKind.REGRESSION],
}
_PREDICTION = {
    LabelKind.BINARY: "probability",
    LabelKind.MULTICLASS: "scores",
    LabelKind.REGRESSION: "prediction",
}
_BY_KIND = frozenset({"log_loss", "accuracy"})
"""Metrics whose formula is another one for two classes than for several."""

EXTRACTORS = "pipeline.batched_metrics"
"""The module by which TFX's Evaluator finds the extractors that these metrics go with."""


def eval_config(config: EvaluateConfig, label: Label) -> config_pb2.EvalConfig:
    """The metrics, bounds and slices in TFMA's form.

    Raises:
      ConfigError: where a bound does not fit the label.
    """
    from tensorflow_model_analysis.proto import config_pb2

    bounds = _checked(config.bounds, label)
    names = dict.fromkeys((*_DEFAULT_METRICS[label.kind], *bounds))
    metrics = [_metric("example_count", label.kind)]
    for name in names:
        metric = _metric(name, label.kind)
        if name in bounds:
            metric.per_slice_thresholds.append(_on_all_rows(_threshold(bounds[name])))
        metrics.append(metric)
    if not bounds:  # TFX blesses nothing where nothing is asked: any model that can be evaluated passes
        threshold = config_pb2.MetricThreshold()
        threshold.value_threshold.lower_bound.value = 1.0
        metrics[0].per_slice_thresholds.append(_on_all_rows(threshold))
    return config_pb2.EvalConfig(
        model_specs=[_model_spec(label)],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(config_pb2.SlicingSpec(feature_keys=list(columns)) for columns in config.slices),
        ],
    )


def read_metrics(folder: str) -> list[SliceRow]:
    """Reads an evaluation; all rows come first, then the slices, the largest first."""
    import tensorflow_model_analysis as tfma

    rows = [_slice_metrics(entry) for entry in tfma.load_metrics(str(Path(folder)))]
    return sorted(
        rows, key=lambda row: (row.name != ALL_ROWS, -row.metrics.get("example_count", 0.0), row.name)
    )


def write_not_compared(config: str, fault: str, folder: Path) -> None:
    """Notes the bounds against the champion that TFMA drops where there is no champion to evaluate.

    Args:
      config: `eval_config` as JSON.
      fault: why the champion was left out; empty where there is none.
      folder: of the evaluation.
    """
    from google.protobuf import json_format
    from tensorflow_model_analysis.proto import config_pb2

    metrics = [
        json.loads(metric.config)["name"]
        for spec in json_format.Parse(config, config_pb2.EvalConfig()).metrics_specs
        for metric in spec.metrics
        if any(bound.threshold.HasField("change_threshold") for bound in metric.per_slice_thresholds)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NOT_COMPARED).write_text(json.dumps({"metrics": metrics, "fault": fault}), encoding="utf-8")


def read_validation(folder: str, has_champion: bool = False) -> tuple[Verdict, ...]:
    """One verdict per bound of an evaluation, on all rows.

    The bound against the champion is a check of its own, `<metric> against the champion`; there is none where there is
    no champion, and a refusal where there is one, as far as the caller knows, that was not evaluated.
    """
    import tensorflow_model_analysis as tfma

    result = tfma.load_validation_result(str(Path(folder)))
    failed = {
        (failure.metric_key.name, failure.metric_threshold.HasField("change_threshold"))
        for validations in result.metric_validations_per_slice
        for failure in validations.failures
    }
    overall = next((row for row in read_metrics(folder) if row.name == ALL_ROWS), SliceRow(ALL_ROWS, {}))
    verdicts: list[Verdict] = []
    for name, threshold in _thresholds(folder):
        if limits := threshold.get("valueThreshold"):
            verdicts.append(_value_verdict(name, limits, overall, (name, False) in failed))
        if change := threshold.get("changeThreshold"):  # kept by TFMA only where a champion was evaluated
            verdicts.append(_change_verdict(name, change, overall, (name, True) in failed))
    return (*verdicts, *_not_compared(Path(folder), has_champion))


def _not_compared(folder: Path, has_champion: bool) -> Iterator[Verdict]:
    path = folder / NOT_COMPARED
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"metrics": [], "fault": ""}
    if not has_champion and not noted["fault"]:
        return
    for name in noted["metrics"]:
        words = (
            f"not measured: {noted['fault'] or 'the champion was not evaluated'}; evaluate.bounds asks how much worse "
            f"{name} is than the champion's"
        )
        bound = "a champion to compare with"
        yield Verdict(f"{name} against the champion", Outcome.REFUSED, "not measured", bound, words)


def _checked(bounds: Iterable[MetricBound], label: Label) -> dict[str, MetricBound]:
    checked: dict[str, MetricBound] = {}
    for bound in bounds:
        if bound.metric not in _FITTING[label.kind]:
            raise ConfigError(
                f"evaluate.bounds: {bound.metric} does not fit the {label.kind} label {label.name!r}; "
                f"there are {', '.join(_FITTING[label.kind])}"
            )
        if bound.metric in checked:
            raise ConfigError(
                f"evaluate.bounds: {bound.metric} is there twice; put min and max into one entry"
            )
        if bound.metric == "calibration" and bound.max_loss_to_champion is not None:
            raise ConfigError(
                "evaluate.bounds: calibration is best at 1: use min and max, not max_loss_to_champion"
            )
        checked[bound.metric] = bound
    return checked


def _on_all_rows(threshold: config_pb2.MetricThreshold) -> config_pb2.PerSliceMetricThreshold:
    """TFMA holds a plain `threshold` against every slice, however small; an empty slicing spec is all rows."""
    from tensorflow_model_analysis.proto import config_pb2

    return config_pb2.PerSliceMetricThreshold(slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold)


def _model_spec(label: Label) -> config_pb2.ModelSpec:
    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.proto import config_pb2

    indices = tuple(str(index) for index in range(len(label.classes)))
    spec = config_pb2.ModelSpec(
        model_type=tfma.TF_GENERIC, signature_name="serving_default", prediction_key=_PREDICTION[label.kind]
    )
    if label.kind is LabelKind.REGRESSION or (label.dtype is DType.INT and label.classes == indices):
        spec.label_key = label.name
    else:  # the graph knows which class a value is
        spec.label_key = label.transformed_name
        spec.preprocessing_function_names.append("transform_features")
    return spec


def _metric(name: str, kind: LabelKind) -> config_pb2.MetricConfig:
    from tensorflow_model_analysis.proto import config_pb2

    classes = "categorical" if kind is LabelKind.MULTICLASS else "binary"
    formula = f"{classes}_{name}" if name in _BY_KIND else name
    return config_pb2.MetricConfig(
        module=EXTRACTORS,
        class_name="BatchedMetric",
        config=json.dumps({"name": name, "formula": formula, "code": source_digest(EXTRACTORS)}),
    )


def _threshold(bound: MetricBound) -> config_pb2.MetricThreshold:
    from tensorflow_model_analysis.proto import config_pb2

    threshold = config_pb2.MetricThreshold()
    if bound.min is not None:
        threshold.value_threshold.lower_bound.value = bound.min
    if bound.max is not None:
        threshold.value_threshold.upper_bound.value = bound.max
    if bound.max_loss_to_champion is not None:
        lower = bound.metric in _LOWER_IS_BETTER
        threshold.change_threshold.direction = (
            config_pb2.MetricDirection.LOWER_IS_BETTER
            if lower
            else config_pb2.MetricDirection.HIGHER_IS_BETTER
        )
        # TFMA asks for an improvement of at least this much; a loss is a negative one.
        loss = bound.max_loss_to_champion
        threshold.change_threshold.absolute.value = loss if lower else -loss
    return threshold


def _slice_metrics(entry: Any) -> SliceRow:
    mine: dict[str, float] = {}
    champions: dict[str, float] = {}
    for pair in entry.metric_keys_and_values:
        if pair.key.is_diff or pair.value.WhichOneof("type") != "double_value":
            continue
        place = champions if pair.key.model_name == BASELINE else mine
        place[pair.key.name] = pair.value.double_value.value
    return SliceRow(_slice_name(entry.slice_key), mine, champions)


def _slice_name(key: Any) -> str:
    parts = []
    for part in key.single_slice_keys:
        value = getattr(part, part.WhichOneof("kind"))
        parts.append(f"{part.column} = {value.decode() if isinstance(value, bytes) else value}")
    return ", ".join(parts) or ALL_ROWS


def _thresholds(folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The bounds that an evaluation was made with, by metric, as TFMA stored them beside its results."""
    stored = json.loads((Path(folder) / "eval_config.json").read_text(encoding="utf-8"))
    for spec in stored["evalConfig"]["metricsSpecs"]:
        for metric in spec["metrics"]:
            for overall in metric.get("perSliceThresholds", ()):
                yield json.loads(metric["config"])["name"], overall["threshold"]


def _value_verdict(name: str, limits: Mapping[str, float], overall: SliceRow, has_failed: bool) -> Verdict:
    bounds = []
    if "lowerBound" in limits:
        bounds.append(f"at least {limits['lowerBound']}")
    if "upperBound" in limits:
        bounds.append(f"at most {limits['upperBound']}")
    return _verdict(name, name, " and ".join(bounds), overall, has_failed)


def _change_verdict(name: str, change: Mapping[str, float], overall: SliceRow, has_failed: bool) -> Verdict:
    loss = abs(change.get("absolute", 0.0))
    theirs = overall.champion.get(name, math.nan)
    bound = f"no more than {loss} worse than the champion's {theirs:.4f}"
    if not math.isfinite(theirs):
        words = f"not measured: {name} of the champion has no value on the test split (evaluate.bounds)"
        return Verdict(f"{name} against the champion", Outcome.REFUSED, "not measured", bound, words)
    return _verdict(f"{name} against the champion", name, bound, overall, has_failed)


def _verdict(check: str, metric: str, bound: str, overall: SliceRow, has_failed: bool) -> Verdict:
    value = overall.metrics.get(metric)
    figure = "not measured" if value is None else f"{value:.4f}"
    words = f"{metric} on the test split is {figure}"
    if value is None or not math.isfinite(value):
        figure, has_failed = "not measured", True
        words = f"{metric} on the test split is not measured"
    if has_failed:
        words += f"; it must be {bound} (evaluate.bounds)"
    return Verdict(check, Outcome.of(not has_failed), figure, bound, words)
