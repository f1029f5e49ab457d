"""The gate inside TFX's own objects: what it writes and what it blesses."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tfx.components.util import model_utils
from tfx.types import standard_artifacts

from gates import evidence
from gates.settings import Override
from gates.verdict import Outcome, Verdict
from pipeline.components.gate_output import GateVerdict, write
from pipeline.components.model_gate import Executor
from pipeline.config import EvaluateConfig, MetricBound
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind
from tests.pipeline.evaluations import write_evaluation

FEATURES = FeatureSet(
    (Feature("size", DType.FLOAT, Kind.NUMERIC),), Label("sold", DType.INT, LabelKind.BINARY, ("0", "1"))
)
SETTINGS = {
    "must_beat": ["majority"],
    "resamples": 100,
    "behaviour": [
        {"kind": "direction", "name": "size sells", "column": "size", "expect": "increase", "add": 1.0},
        {"kind": "invariance", "name": "the city does not matter", "column": "city"},
        {"kind": "rows", "name": "giants", "rows": [{"values": {"size": 5.0}, "expect": "1"}]},
    ],
    "fairness": [{"column": "city", "max_gap": 0.1}],
}
BOUNDS = EvaluateConfig(bounds=(MetricBound(metric="auc", min=0.7, max_loss_to_champion=0.02),))
ROWS = 2000


def write_split(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    with tf.io.TFRecordWriter(str(folder / "rows.gz"), "GZIP") as writer:
        for size in random.normal(size=ROWS):
            sold = int(size + random.normal() > 0)
            city = random.choice([b"Rome", b"Oslo"])
            features = {
                "size": tf.train.Feature(float_list=tf.train.FloatList(value=[size])),
                "city": tf.train.Feature(bytes_list=tf.train.BytesList(value=[city])),
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


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> standard_artifacts.Examples:
    folder = tmp_path_factory.mktemp("examples")
    made = standard_artifacts.Examples()
    made.uri, made.split_names = str(folder), '["train", "validation", "test"]'
    for seed, split in enumerate(("train", "validation", "test")):
        write_split(folder / f"Split-{split}", seed)
    return made


def judge(
    folder: Path,
    examples,
    candidate,
    champion=None,
    auc: float = 0.8,
    trained_rows: int = ROWS,
    overrides: tuple[Override, ...] = (),
    pushed: Path | None = None,
):
    """The verdicts by name, and the blessing; `auc` is what the Evaluator found, where the champion has 0.8."""
    evaluation, serving, run = (
        standard_artifacts.ModelEvaluation(),
        GateVerdict(),
        standard_artifacts.ModelRun(),
    )
    evaluation.uri, serving.uri, run.uri = (str(folder / name) for name in ("evaluation", "serving", "run"))
    write_evaluation(
        folder / "evaluation", BOUNDS, FEATURES.label, {"auc": auc}, {"auc": 0.8} if champion else None
    )
    write([Verdict("load", Outcome.PASSED, "1 s", "at most 9 s", "it loads")], None, folder / "serving")
    (folder / "run").mkdir()
    (folder / "run" / "training.json").write_text(json.dumps({"rows": {"train": trained_rows}}))
    push = standard_artifacts.PushedModel()
    push.set_string_custom_property("pushed_destination", str(pushed))
    verdict, blessing = GateVerdict(), standard_artifacts.ModelBlessing()
    verdict.uri, blessing.uri = str(folder / "verdict"), str(folder / f"blessing-{candidate.id}")
    Executor().Do(
        {
            "examples": [examples],
            "model": [candidate],
            "champion": [champion] if champion else [],
            "evaluation": [evaluation],
            "serving_verdict": [serving],
            "pushed": [push] if pushed else [],
            "model_run": [run],
        },
        {"verdict": [verdict], "blessing": [blessing]},
        {
            "settings": json.dumps(SETTINGS),
            "slices": '[["city"]]',
            "overrides": json.dumps([dataclasses.asdict(one) for one in overrides]),
            "features": FEATURES.to_json(),
            "source_digest": "",
        },
    )
    entries = json.loads((folder / "verdict" / "verdict.json").read_text())
    return {entry["name"]: Verdict.from_json(entry) for entry in entries}, blessing


def refused(verdicts: dict[str, Verdict]) -> set[str]:
    return {name for name, verdict in verdicts.items() if not verdict.passed}


def test_a_good_model_is_blessed_and_everything_is_measured(tmp_path: Path, examples) -> None:
    verdicts, blessing = judge(tmp_path, examples, model_artifact(tmp_path, 1, slope=2.0))
    assert refused(verdicts) == set()
    assert model_utils.is_model_blessed(blessing)
    assert set(verdicts) == {
        "auc",
        "record counts",
        "finite answers",
        "answers differ between rows",
        "order of the classes",
        "against majority",
        "against one_rule",
        "against linear",
        "calibration error",
        "slice city = Rome",
        "slice city = Oslo",
        "fairness of city: true positive rate",
        "behaviour size sells",
        "behaviour the city does not matter",
        "behaviour giants",
        "load",
    }
    assert verdicts["against linear"].bound == "shown only"
    found = evidence.read(evidence.ModelEvidence, tmp_path / "verdict")
    assert found.rows == ROWS
    assert {one.subject for one in found.estimates} == {"model", "majority", "one_rule", "linear"}
    assert [curve.subject for curve in found.roc] == ["model", "linear"]
    assert found.threshold == pytest.approx(0.5, abs=0.15)
    assert [one.column for one in found.importance] == ["size"]
    assert found.importance[0].loss > 0.2
    assert len(found.wrong) == 20
    assert set(found.wrong[0].values) == {"size", "city"}
    assert [one.passed for one in found.behaviour] == [True, True, True]
    assert set(found.fairness[0].by_group) == {"Rome", "Oslo"}
    assert (len(found.calibration), found.confusion_matrix) == (10, ())
    assert found.residuals is not None
    assert [(one.column, len(one.bins)) for one in found.residuals.columns] == [("size", 10)]
    assert (found.residuals.split, found.residuals.earlier_split) == ("test", "validation")


def test_a_model_outside_the_evaluators_bounds_is_not_blessed_whatever_it_beats(
    tmp_path: Path, examples
) -> None:
    verdicts, blessing = judge(tmp_path, examples, model_artifact(tmp_path, 1, 2.0), auc=0.6)
    assert refused(verdicts) == {"auc"}
    assert not model_utils.is_model_blessed(blessing)


def test_swapped_scores_are_refused(tmp_path: Path, examples) -> None:
    champion, swapped = model_artifact(tmp_path, 1, slope=2.0), model_artifact(tmp_path, 2, slope=-2.0)
    verdicts, blessing = judge(tmp_path, examples, swapped, champion)
    assert {
        "order of the classes",
        "against majority",
        "against the champion",
        "behaviour size sells",
        "behaviour giants",
    } <= refused(verdicts)
    assert not model_utils.is_model_blessed(blessing)


def test_the_champion_answers_the_same_rows_and_a_loss_to_it_can_be_answered_for(
    tmp_path: Path, examples
) -> None:
    champion, worse = model_artifact(tmp_path, 1, 2.0), model_artifact(tmp_path, 2, 2.0, noise=3.0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    verdicts, blessing = judge(tmp_path / "a", examples, worse, champion, auc=0.7)
    assert refused(verdicts) == {"against the champion", "auc against the champion"}
    assert "worse than the one that serves, beyond the interval" in verdicts["against the champion"].reason
    assert not model_utils.is_model_blessed(blessing)
    rebaseline = Override(check="*against the champion", owner="ann", reason="it had learned from a leak")
    verdicts, blessing = judge(tmp_path / "b", examples, worse, champion, auc=0.7, overrides=(rebaseline,))
    assert refused(verdicts) == set()
    assert verdicts["against the champion"].outcome is Outcome.OVERRIDDEN
    assert model_utils.is_model_blessed(blessing)


def test_a_champion_that_is_gone_is_a_refusal_and_no_crash(tmp_path: Path, examples) -> None:
    champion = model_artifact(tmp_path, 1, 2.0)
    shutil.rmtree(champion.uri)
    verdicts, blessing = judge(tmp_path, examples, model_artifact(tmp_path, 2, 2.0), champion)
    assert refused(verdicts) == {"against the champion"}
    assert "the champion cannot answer these rows: there is no model in" in (
        verdicts["against the champion"].reason
    )
    assert not model_utils.is_model_blessed(blessing)


def test_of_a_champion_that_was_lost_the_copy_that_serves_answers(tmp_path: Path, examples) -> None:
    serves = Path(model_artifact(tmp_path, 1, 2.0).uri) / "Format-Serving"
    worse = model_artifact(tmp_path, 2, 2.0, noise=3.0)
    verdicts, _ = judge(tmp_path, examples, worse, pushed=serves)
    assert refused(verdicts) == {"against the champion"}
    assert "worse than the one that serves" in verdicts["against the champion"].reason


def test_a_champion_that_answers_nan_is_a_refusal(tmp_path: Path, examples) -> None:
    champion, fine = model_artifact(tmp_path, 1, float("nan")), model_artifact(tmp_path, 2, 2.0)
    verdicts, _ = judge(tmp_path, examples, fine, champion)
    assert refused(verdicts) == {"against the champion"}
    assert "with NaN or infinity" in verdicts["against the champion"].reason


def test_nan_weights_are_refused_by_name(tmp_path: Path, examples) -> None:
    verdicts, blessing = judge(tmp_path, examples, model_artifact(tmp_path, 1, slope=float("nan")))
    assert "NaN" in verdicts["finite answers"].reason
    assert not model_utils.is_model_blessed(blessing)


def test_rows_that_were_lost_on_the_way_to_the_trainer_are_named(tmp_path: Path, examples) -> None:
    candidate = model_artifact(tmp_path, 1, slope=2.0)
    verdicts, _ = judge(tmp_path, examples, candidate, trained_rows=ROWS - 10)
    assert refused(verdicts) == {"record counts"}
    assert "the train split has 2,000 rows, and the Trainer read 1,990" in verdicts["record counts"].reason
