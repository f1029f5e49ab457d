import json
from typing import Any

import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from pipeline.config import ConfigError, EvaluateConfig, MetricBound
from pipeline.evaluation import eval_config, read_validation, write_not_compared
from schemas.features import DType, Label, LabelKind
from tests.pipeline.evaluations import write_evaluation

BINARY = Label("late", DType.INT, LabelKind.BINARY, ("0", "1"))
YES_NO = Label("late", DType.BYTES, LabelKind.BINARY, ("no", "yes"))
COLORS = Label("color", DType.BYTES, LabelKind.MULTICLASS, ("red", "green", "blue"))
PRICE = Label("price", DType.FLOAT, LabelKind.REGRESSION)


def metrics(config: EvaluateConfig, label: Label) -> dict[str, Any]:
    return {
        json.loads(metric.config)["name"]: metric
        for metric in eval_config(config, label).metrics_specs[0].metrics
    }


@pytest.mark.parametrize(
    ("label", "key", "preprocessing", "prediction"),
    [
        (BINARY, "late", [], "probability"),
        (YES_NO, "late_label", ["transform_features"], "probability"),
        (COLORS, "color_label", ["transform_features"], "scores"),
        (PRICE, "price", [], "prediction"),
    ],
)
def test_label_and_prediction_are_found_where_the_model_puts_them(label, key, preprocessing, prediction):
    [spec] = eval_config(EvaluateConfig(), label).model_specs
    assert (spec.label_key, list(spec.preprocessing_function_names)) == (key, preprocessing)
    assert (spec.prediction_key, spec.signature_name) == (prediction, "serving_default")


@pytest.mark.parametrize("label", [BINARY, COLORS, PRICE], ids=lambda label: label.kind)
def test_every_metric_is_one_that_tfma_knows_and_something_is_asked_for(label):
    config = eval_config(EvaluateConfig(), label)
    tfma.utils.verify_eval_config(config)
    keys = tfma.metrics.metric_thresholds_from_metrics_specs(config.metrics_specs, eval_config=config)
    assert [key.name for key in keys] == ["example_count"]


def test_a_bound_holds_for_all_rows_and_a_loss_counts_in_the_bad_direction():
    config = EvaluateConfig(
        bounds=(
            MetricBound(metric="auc", min=0.7, max_loss_to_champion=0.01),
            MetricBound(metric="log_loss", max=0.5, max_loss_to_champion=0.02),
        ),
        slices=(("carrier",), ("carrier", "origin")),
    )
    found = metrics(config, BINARY)
    [auc] = found["auc"].per_slice_thresholds
    [loss] = found["log_loss"].per_slice_thresholds
    assert list(auc.slicing_specs) == [config_pb2.SlicingSpec()]
    assert auc.threshold.value_threshold.lower_bound.value == 0.7
    assert auc.threshold.change_threshold.absolute.value == -0.01
    assert auc.threshold.change_threshold.direction == config_pb2.MetricDirection.HIGHER_IS_BETTER
    assert loss.threshold.value_threshold.upper_bound.value == 0.5
    assert loss.threshold.change_threshold.absolute.value == 0.02
    assert loss.threshold.change_threshold.direction == config_pb2.MetricDirection.LOWER_IS_BETTER
    slices = [list(spec.feature_keys) for spec in eval_config(config, BINARY).slicing_specs]
    assert slices == [[], ["carrier"], ["carrier", "origin"]]


@pytest.mark.parametrize(
    ("bounds", "label", "message"),
    [
        ((MetricBound(metric="auc", min=0.7),), PRICE, "auc does not fit the regression label 'price'"),
        ((MetricBound(metric="auc", min=0.7),) * 2, BINARY, "auc is there twice"),
        ((MetricBound(metric="calibration", min=0.9, max_loss_to_champion=0.1),), BINARY, "best at 1"),
    ],
)
def test_a_bound_that_cannot_be_checked_is_refused(bounds, label, message):
    with pytest.raises(ConfigError, match=message):
        eval_config(EvaluateConfig(bounds=bounds), label)


def test_a_slice_is_never_held_against_a_bound():
    from tensorflow_model_analysis.evaluators.metrics_validator import validate_metrics
    from tensorflow_model_analysis.metrics.metric_types import MetricKey

    config = eval_config(EvaluateConfig(bounds=(MetricBound(metric="auc", min=0.7),)), BINARY)
    assert not validate_metrics(((), {MetricKey("auc"): 0.6}), config).validation_ok
    assert validate_metrics(((("carrier", "AA"),), {MetricKey("auc"): 0.6}), config).validation_ok


BOUNDS = EvaluateConfig(
    bounds=(
        MetricBound(metric="auc", min=0.7, max_loss_to_champion=0.01),
        MetricBound(metric="log_loss", max=0.5),
    )
)


@pytest.mark.parametrize(
    ("auc", "refused"),
    [
        (0.80, set()),
        (0.75, {"auc against the champion"}),
        (0.65, {"auc", "auc against the champion"}),
        (0.7955, set()),
    ],
)
def test_the_value_and_the_loss_to_the_champion_are_checks_of_their_own(tmp_path, auc, refused):
    metrics, champion = {"auc": auc, "log_loss": 0.4}, {"auc": 0.8, "log_loss": 0.4}
    write_evaluation(tmp_path / "evaluation", BOUNDS, BINARY, metrics, champion)
    found = {verdict.name: verdict for verdict in read_validation(str(tmp_path / "evaluation"))}
    assert set(found) == {"auc", "auc against the champion", "log_loss"}
    assert {name for name, verdict in found.items() if not verdict.passed} == refused
    assert found["auc"].bound == "at least 0.7"
    assert found["auc against the champion"].bound == "no more than 0.01 worse than the champion's 0.8000"


def test_a_value_may_be_refused_where_the_champion_is_no_better(tmp_path):
    metrics = {"auc": 0.65, "log_loss": 0.6}
    write_evaluation(tmp_path / "evaluation", BOUNDS, BINARY, metrics, champion=metrics)
    refused = [v.reason for v in read_validation(str(tmp_path / "evaluation")) if not v.passed]
    assert refused == [
        "auc on the test split is 0.6500; it must be at least 0.7 (evaluate.bounds)",
        "log_loss on the test split is 0.6000; it must be at most 0.5 (evaluate.bounds)",
    ]


def test_without_a_champion_there_is_no_check_against_it(tmp_path):
    write_evaluation(tmp_path / "evaluation", BOUNDS, BINARY, {"auc": 0.75, "log_loss": 0.4})
    assert [v.name for v in read_validation(str(tmp_path / "evaluation")) if v.passed] == ["auc", "log_loss"]


def test_a_bound_whose_metric_was_not_measured_is_refused(tmp_path):
    write_evaluation(tmp_path / "evaluation", BOUNDS, BINARY, {"log_loss": 0.4})
    found = {v.name: v for v in read_validation(str(tmp_path / "evaluation"))}
    assert not found["auc"].passed
    assert found["auc"].reason.startswith("auc on the test split is not measured; it must be at least 0.7")
    assert found["log_loss"].passed


def test_a_bound_against_a_champion_that_was_not_evaluated_is_refused(tmp_path):
    from google.protobuf import json_format

    folder = tmp_path / "evaluation"
    write_evaluation(folder, BOUNDS, BINARY, {"auc": 0.75, "log_loss": 0.4})
    config = json_format.MessageToJson(eval_config(BOUNDS, BINARY))
    write_not_compared(config, "", folder)
    assert all(v.passed for v in read_validation(str(folder)))
    [refused] = [v for v in read_validation(str(folder), has_champion=True) if not v.passed]
    assert refused.name == "auc against the champion"
    write_not_compared(config, "its model is gone", folder)
    [refused] = [v for v in read_validation(str(folder)) if not v.passed]
    assert refused.reason.startswith("not measured: its model is gone")
