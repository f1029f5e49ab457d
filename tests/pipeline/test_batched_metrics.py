import json

import numpy as np
import pandas as pd
import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.slicer import slicer_lib

from pipeline.batched_metrics import BatchedMetric, slice_batch

ROWS = 300
CHANCE = np.random.default_rng(1)
CERTAIN = [0.0, 1.0, 0.5, 1.0]
"""Scores at the ends and in the middle, where rounding and logarithms go wrong."""


def table(labels, predictions) -> pd.DataFrame:
    return pd.DataFrame({"label": list(labels), "prediction": list(predictions)})


def binary() -> pd.DataFrame:
    labels = CHANCE.integers(0, 2, ROWS).astype(np.float32)
    scores = np.clip(0.3 * labels + CHANCE.normal(0.4, 0.3, ROWS), 0, 1)
    scores[: len(CERTAIN)] = CERTAIN
    return table(labels, scores.astype(np.float32))


def prices() -> pd.DataFrame:
    labels = CHANCE.normal(30, 9, ROWS).astype(np.float32)
    return table(labels, (labels + CHANCE.normal(0, 4, ROWS)).astype(np.float32))


def computed(rows: pd.DataFrame, *metrics: config_pb2.MetricConfig) -> dict[str, float]:
    """What TFMA makes of some metrics, by name."""
    config = config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(label_key="label", prediction_key="prediction")],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
        options=config_pb2.Options(include_default_metrics={"value": False}),
    )
    [(_, found)] = tfma.analyze_raw_data(rows, config).slicing_metrics
    return {name: value["doubleValue"] for name, value in found[""][""].items()}


@pytest.mark.parametrize(
    ("data", "stock"),
    [
        (
            binary,
            {
                "auc": "AUC",
                "auc_precision_recall": "AUCPrecisionRecall",
                "binary_log_loss": "BinaryCrossentropy",
                "binary_accuracy": "BinaryAccuracy",
                "precision": "Precision",
                "recall": "Recall",
                "calibration": "Calibration",
                "example_count": "ExampleCount",
            },
        ),
        (
            prices,
            {
                "mean_squared_error": "MeanSquaredError",
                "mean_absolute_error": "MeanAbsoluteError",
                "calibration": "Calibration",
            },
        ),
    ],
)
def test_the_values_are_those_of_tfma(data, stock):
    rows = data()
    ours = (
        config_pb2.MetricConfig(
            module="pipeline.batched_metrics",
            class_name="BatchedMetric",
            config=json.dumps({"name": name, "formula": name}),
        )
        for name in stock
    )
    theirs = (
        config_pb2.MetricConfig(class_name=class_name, config=json.dumps({"name": name}))
        for name, class_name in stock.items()
    )
    assert computed(rows, *ours) == pytest.approx(computed(rows, *theirs), abs=1e-6)


def combined(formula: str, *batches: tuple[np.ndarray, np.ndarray]) -> float:
    config = config_pb2.EvalConfig(model_specs=[config_pb2.ModelSpec(prediction_key="scores")])
    [computation] = BatchedMetric("m", formula).computations(eval_config=config, model_names=[""])
    combiner = computation.combiner
    sums = []
    for labels, scores in batches:
        inputs = tfma.metrics.StandardMetricInputs(
            {tfma.LABELS_KEY: labels, tfma.PREDICTIONS_KEY: {"scores": scores}}
        )
        sums.append(combiner.add_input(combiner.create_accumulator(), inputs))
    [value] = combiner.extract_output(combiner.merge_accumulators(sums)).values()
    return value


def test_several_classes_are_measured_as_keras_does_however_the_rows_are_batched():
    import tf_keras

    labels = CHANCE.integers(0, 3, (ROWS, 1))
    scores = CHANCE.dirichlet([1, 1, 1], ROWS).astype(np.float32)
    loss = float(np.mean(tf_keras.losses.sparse_categorical_crossentropy(labels, scores)))
    hits = float(np.mean(tf_keras.metrics.sparse_categorical_accuracy(labels[:, 0], scores)))
    for cut in (1, 100):
        batches = ((labels[:cut], scores[:cut]), (labels[cut:], scores[cut:]))
        assert combined("categorical_log_loss", *batches) == pytest.approx(loss, abs=1e-6)
        assert combined("categorical_accuracy", *batches) == pytest.approx(hits, abs=1e-6)


def test_a_batch_comes_once_for_each_slice_with_the_rows_of_that_slice():
    specs = [slicer_lib.SingleSliceSpec(), slicer_lib.SingleSliceSpec(columns=["carrier"])]
    batch = {
        tfma.FEATURES_KEY: {"carrier": np.array([[b"AA"], [b"UA"], [b"AA"]]), "other": np.zeros((3, 1))},
        tfma.LABELS_KEY: np.array([[0], [1], [1]]),
        tfma.PREDICTIONS_KEY: {"probability": np.array([[0.1], [0.2], [0.3]])},
    }
    found = {
        key: (part[tfma.LABELS_KEY].tolist(), part[tfma.PREDICTIONS_KEY]["probability"].tolist())
        for part in slice_batch(batch, specs, {"carrier"})
        for key in part[tfma.SLICE_KEY_TYPES_KEY]
    }
    assert found == {
        (): ([[0], [1], [1]], [[0.1], [0.2], [0.3]]),
        (("carrier", "AA"),): ([[0], [1]], [[0.1], [0.3]]),
        (("carrier", "UA"),): ([[1]], [[0.2]]),
    }


def test_a_row_without_a_label_is_refused():
    labels = tfma.types.VarLenTensorValue(np.array([1]), np.array([[0, 0]]), np.array([2, 1]))
    batch = {tfma.FEATURES_KEY: {}, tfma.LABELS_KEY: labels, tfma.PREDICTIONS_KEY: np.zeros((2, 1))}
    with pytest.raises(ValueError, match="2 rows have 1 labels"):
        list(slice_batch(batch, [slicer_lib.SingleSliceSpec()], ()))


def test_an_answer_that_is_no_number_is_an_error_and_no_figure():
    rows = binary()
    rows.loc[3, "prediction"] = np.float32("inf")
    config = json.dumps({"name": "auc", "formula": "auc"})
    metric = config_pb2.MetricConfig(
        module=BatchedMetric.__module__, class_name="BatchedMetric", config=config
    )
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Beam wraps it in a class of its own)
        computed(rows, metric)
    assert "answers NaN or infinity for 1 rows" in str(caught.getrepr(chain=True))
