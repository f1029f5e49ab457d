from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx.components.evaluator import executor
from tfx.types import standard_artifacts

from pipeline.components.evaluator import Executor


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
    examples.uri, examples.split_names = str(folder / "examples"), '["test"]'
    champion.uri = str(folder / "champion")
    Executor().Do({"examples": [examples], "baseline_model": [champion]}, {}, {})
    return champion


def save(folder: Path, column: str) -> None:
    raw = tf.function(lambda **columns: {"scores": columns[column]})
    named = {column: tf.TensorSpec([None], tf.float32, name=column)}
    tf.saved_model.save(
        tf.Module(),
        str(folder / "champion" / "Format-Serving"),
        signatures={"serving_raw": raw.get_concrete_function(**named)},
    )


def test_a_champion_that_fits_is_evaluated_too(tmp_path, given):
    save(tmp_path, "size")
    champion = evaluate(tmp_path)
    assert [inputs["baseline_model"] for inputs in given] == [[champion]]


def test_a_champion_whose_folder_is_gone_or_that_reads_another_column_is_left_out(tmp_path, given):
    evaluate(tmp_path / "gone")
    save(tmp_path / "other", "tariff")
    evaluate(tmp_path / "other")
    assert [inputs["baseline_model"] for inputs in given] == [[], []]
