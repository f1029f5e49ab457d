import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import json_format
from tfx.components.evaluator import executor
from tfx.types import standard_artifacts

from pipeline.components.evaluator import Executor
from pipeline.config import EvaluateConfig, MetricBound
from pipeline.evaluation import NOT_COMPARED, eval_config
from schemas.features import DType, Label, LabelKind

BOUNDS = EvaluateConfig(bounds=(MetricBound(metric="auc", min=0.6, max_loss_to_champion=0.01),))
LABEL = Label("late", DType.INT, LabelKind.BINARY, ("0", "1"))


@pytest.fixture
def given(monkeypatch) -> list[dict[str, Any]]:
    """The inputs that TFX's own executor gets."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(
        executor.Executor, "Do", lambda self, inputs, outputs, properties: seen.append(inputs)
    )
    return seen


def evaluate(folder: Path) -> standard_artifacts.Model:
    """Evaluates on one row with the column size; returns the champion, whose folder may hold a model."""
    (folder / "examples" / "Split-test").mkdir(parents=True)
    row = tf.train.Example()
    row.features.feature["size"].float_list.value.append(1.0)
    with tf.io.TFRecordWriter(str(folder / "examples" / "Split-test" / "rows.gz"), "GZIP") as writer:
        writer.write(row.SerializeToString())
    examples, champion = standard_artifacts.Examples(), standard_artifacts.Model()
    evaluation = standard_artifacts.ModelEvaluation()
    evaluation.uri = str(folder / "evaluation")
    config = json_format.MessageToJson(eval_config(BOUNDS, LABEL))
    examples.uri, examples.split_names = str(folder / "examples"), '["test"]'
    champion.uri = str(folder / "champion")
    inputs = {"examples": [examples], "baseline_model": [champion]}
    Executor().Do(inputs, {"evaluation": [evaluation]}, {"eval_config": config})
    return champion


def save(folder: Path, column: str, dtype: tf.DType = tf.float32) -> None:
    raw = tf.function(lambda **columns: {"scores": columns[column]})
    named = {column: tf.TensorSpec([None], dtype, name=column)}
    tf.saved_model.save(
        tf.Module(),
        str(folder / "champion" / "Format-Serving"),
        signatures={"serving_raw": raw.get_concrete_function(**named)},
    )


def test_a_champion_that_fits_is_evaluated_too(tmp_path, given):
    save(tmp_path, "size")
    champion = evaluate(tmp_path)
    assert [inputs["baseline_model"] for inputs in given] == [[champion]]


def test_a_champion_that_reads_a_column_without_any_value_here_is_evaluated_too(tmp_path, given):
    save(tmp_path, "tariff")
    champion = evaluate(tmp_path)
    assert [inputs["baseline_model"] for inputs in given] == [[champion]]


def test_a_champion_that_is_gone_or_reads_another_type_is_left_out_and_its_bounds_are_noted(tmp_path, given):
    evaluate(tmp_path / "gone")
    save(tmp_path / "other", "size", tf.string)
    evaluate(tmp_path / "other")
    assert [inputs["baseline_model"] for inputs in given] == [[], []]
    for folder, fault in (("gone", "there is no model"), ("other", "it reads 'size' as string")):
        noted = json.loads((tmp_path / folder / "evaluation" / NOT_COMPARED).read_text())
        assert noted["metrics"] == ["auc"]
        assert fault in noted["fault"]
