"""A version is read, checked and warmed up, or refused with a reason."""

import json
import shutil
from unittest.mock import create_autospec

import pytest
import tensorflow as tf

from beam_jobs.pushed import LoadedModel, PushedModel
from beam_jobs.rows import PredictionError
from beam_jobs.saved_model import SavedSignature
from tests.beam_jobs.pushed_model import FEATURES, NUMBERS, chance, push


@pytest.fixture
def copied(serving, tmp_path):
    return shutil.copytree(serving / "1", tmp_path / "serving" / "1")


def test_a_serving_folder_stands_for_its_newest_version(copied):
    shutil.copytree(copied, copied.parent / "10")
    shutil.copytree(copied, copied.parent / "9")
    (copied.parent / "11").mkdir()  # A push under way has no manifest yet.
    assert PushedModel.read(str(copied.parent)).folder == str(copied.parent / "10")
    assert PushedModel.read(str(copied)).folder == str(copied)


def test_the_manifest_says_what_rows_the_model_takes(pushed):
    assert pushed.features == FEATURES
    assert (pushed.version, pushed.run_id, pushed.key, pushed.threshold) == (1, "run-1", ("day",), 0.5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: shutil.rmtree(folder), "no pushed model here"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "manifest.json").write_text('{"version": 1}'), "an older Headworks"),
    ],
)
def test_what_is_no_pushed_version_is_named(copied, spoil, reason):
    spoil(copied)
    with pytest.raises(PredictionError, match=reason) as caught:
        PushedModel.read(str(copied))
    assert str(copied) in str(caught.value)


def test_a_changed_file_is_named_before_anything_is_loaded(copied):
    graph = copied / "saved_model.pb"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(PredictionError, match=r"saved_model\.pb missing or not what was pushed"):
        PushedModel.read(str(copied)).load()


def test_a_model_that_answers_otherwise_than_in_training_is_refused(copied, tmp_path):
    other = push(tmp_path / "other", weight=2.0, with_warm_up=False)
    shutil.copytree(copied / "assets.extra", other / "assets.extra")
    with pytest.raises(PredictionError, match="answers its warm-up requests otherwise than in training"):
        PushedModel.read(str(other)).load()


def test_a_folder_with_digests_and_no_model_is_refused(copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    shutil.rmtree(copied / "variables")
    manifest["files"] = {}
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PredictionError, match="no SavedModel with signature 'serving_default'"):
        PushedModel.read(str(copied)).load()


def test_a_loaded_model_scores_rows_and_rows_without_values(pushed):
    scores = pushed.load().predict([b"", b""])
    assert scores.shape == (2, 2)
    assert scores[0, 1] == pytest.approx(chance(0))


def test_what_a_model_fails_on_is_told_without_what_tensorflow_writes_above_it(pushed):
    whole = {"humidity": tf.train.Feature(int64_list=tf.train.Int64List(value=[40]))}
    row = tf.train.Example(features=tf.train.Features(feature=whole)).SerializeToString()
    with pytest.raises(PredictionError) as raised:
        pushed.load().predict([row])
    assert str(raised.value) == (
        f"{pushed.folder}: the model fails: Key: humidity, Index: 0. Data types don't match. "
        "Expected type: float, Actual type: int64"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Graph execution error:\n\nDetected at node Parse defined at (most recent call last):\n"
        "<stack traces unavailable>\nName: <unknown>, no  such kernel\n\t [[{{node Parse}}]] [Op:__inference_1]",
        "\nno such kernel [Op:__inference_1]",
    ],
)
def test_the_cause_is_found_in_every_form_of_an_error(pushed, text):
    signature = create_autospec(SavedSignature, instance=True, side_effect=ValueError(text))
    with pytest.raises(PredictionError, match=r"/1: the model fails: no such kernel$"):
        LoadedModel(pushed, signature).predict([b""])


def test_a_model_for_numbers_answers_one_number_a_row(tmp_path):
    push(tmp_path, features=NUMBERS, threshold=None)
    model = PushedModel.read(str(tmp_path))
    assert model.outputs == 1
    assert model.load().predict([b""]).tolist() == [[0.0]]
