"""The gate inside TFX's own objects: what it writes and what it blesses."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tfx.components.util import model_utils
from tfx.types import standard_artifacts

from gates.verdict import Verdict
from pipeline.components.data_gate import GateVerdict
from pipeline.components.model_gate import Executor
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind

FEATURES = FeatureSet(
    (Feature("size", DType.FLOAT, Kind.NUMERIC),), Label("sold", DType.INT, LabelKind.BINARY, ("0", "1"))
)
SETTINGS = {"must_beat": ["majority"], "level": 0.95, "resamples": 100, "most_rows": 10_000}


def write_split(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    with tf.io.TFRecordWriter(str(folder / "rows.gz"), "GZIP") as writer:
        for size in random.normal(size=2000):
            sold = int(size + random.normal() > 0)
            features = {
                "size": tf.train.Feature(float_list=tf.train.FloatList(value=[size])),
                "sold": tf.train.Feature(int64_list=tf.train.Int64List(value=[sold])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def write_model(folder: Path, slope: float, noise: float) -> None:
    """A model whose logit is the size, times `slope`, and a wave of height `noise` that means nothing."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        size = tf.io.parse_example(examples, {"size": tf.io.FixedLenFeature([1], tf.float32)})["size"]
        positive = tf.sigmoid(slope * size + noise * tf.sin(1000.0 * size))
        return {"scores": tf.concat([1.0 - positive, positive], axis=1)}

    tf.saved_model.save(tf.Module(), str(folder / "Format-Serving"), signatures={"serving_default": serve})


def model_artifact(folder: Path, number: int, slope: float, noise: float = 0.0) -> standard_artifacts.Model:
    write_model(folder / f"model-{number}", slope, noise)
    model = standard_artifacts.Model()
    model.uri, model.id = str(folder / f"model-{number}"), number
    return model


@pytest.fixture
def examples(tmp_path: Path) -> standard_artifacts.Examples:
    made = standard_artifacts.Examples()
    made.uri, made.split_names = str(tmp_path / "examples"), '["train", "test"]'
    for seed, split in enumerate(("train", "test")):
        write_split(tmp_path / "examples" / f"Split-{split}", seed)
    return made


def judge(folder: Path, examples, candidate, champion=None, within_bounds: bool = True):
    """The verdicts by name, and the blessing."""
    bounds = standard_artifacts.ModelBlessing()
    bounds.set_int_custom_property("blessed", int(within_bounds))
    verdict, blessing = GateVerdict(), standard_artifacts.ModelBlessing()
    verdict.uri, blessing.uri = str(folder / "verdict"), str(folder / f"blessing-{candidate.id}")
    Executor().Do(
        {
            "examples": [examples],
            "model": [candidate],
            "champion": [champion] if champion else [],
            "model_blessing": [bounds],
        },
        {"verdict": [verdict], "blessing": [blessing]},
        {"settings": json.dumps(SETTINGS), "features": FEATURES.to_json(), "source_digest": ""},
    )
    entries = json.loads((folder / "verdict" / "verdict.json").read_text())
    return {entry["name"]: Verdict.from_json(entry) for entry in entries}, blessing


def test_a_good_model_is_blessed(tmp_path: Path, examples) -> None:
    candidate = model_artifact(tmp_path, 1, slope=2.0)
    verdicts, blessing = judge(tmp_path, examples, candidate)
    assert set(verdicts) == {"against majority", "against one_rule", "against linear"}
    assert verdicts["against linear"].bound == "shown only"
    assert model_utils.is_model_blessed(blessing)


def test_a_model_outside_the_evaluators_bounds_is_not_blessed_whatever_it_beats(
    tmp_path: Path, examples
) -> None:
    verdicts, blessing = judge(tmp_path, examples, model_artifact(tmp_path, 1, 2.0), within_bounds=False)
    assert verdicts["against majority"].passed
    assert not model_utils.is_model_blessed(blessing)


def test_swapped_scores_are_refused(tmp_path: Path, examples) -> None:
    champion, swapped = model_artifact(tmp_path, 1, slope=2.0), model_artifact(tmp_path, 2, slope=-2.0)
    verdicts, refused = judge(tmp_path, examples, swapped, champion)
    assert not verdicts["against majority"].passed
    assert not verdicts["against the champion"].passed
    assert not model_utils.is_model_blessed(refused)


def test_the_champion_answers_the_same_rows(tmp_path: Path, examples) -> None:
    champion, worse = model_artifact(tmp_path, 1, 2.0), model_artifact(tmp_path, 2, 2.0, noise=3.0)
    verdict = judge(tmp_path, examples, worse, champion)[0]["against the champion"]
    assert not verdict.passed
    assert "worse than the one that serves, beyond the interval" in verdict.reason


def test_nan_weights_are_refused_by_name(tmp_path: Path, examples) -> None:
    verdicts, blessing = judge(tmp_path, examples, model_artifact(tmp_path, 1, slope=float("nan")))
    assert "NaN" in verdicts["finite answers"].reason
    assert not model_utils.is_model_blessed(blessing)
