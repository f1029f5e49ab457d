from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.saved_model import SavedSignature

WORDS = np.array([b"wet", b"dry", b"hail"], np.object_)


class _Words(tf.Module):
    """Looks words up in a file of its own and weighs their numbers, in functions that call functions."""

    def __init__(self, file):
        super().__init__()
        rows = tf.lookup.TextFileInitializer(
            file, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        self.table = tf.lookup.StaticHashTable(rows, -1)
        self.weight = tf.Variable(0.5)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def answer(self, examples):
        return {"scores": self.weighed(self.table.lookup(examples)), "words": examples}

    @tf.function
    def weighed(self, numbers):
        return tf.cond(tf.size(numbers) > 0, lambda: self.scaled(numbers), lambda: tf.zeros([0]))

    @tf.function
    def scaled(self, numbers):
        return tf.cast(numbers, tf.float32) * self.weight

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def trained(self, examples):
        with tf.device("/GPU:7"):  # Where it was trained; nobody has to have one to ask it.
            return {"length": tf.strings.length(examples)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    (folder / "words.txt").write_text("dry\nwet\n")
    module = _Words(str(folder / "words.txt"))
    signatures = {"serving_default": module.answer, "other": module.trained}
    tf.saved_model.save(module, str(folder / "model"), signatures)
    (folder / "words.txt").unlink()
    return str(folder / "model")


def test_a_signature_answers_as_the_whole_model_does(folder):
    signature = SavedSignature(folder, "serving_default", "examples", "scores")
    whole = tf.saved_model.load(folder).signatures["serving_default"]
    assert signature(WORDS).tolist() == whole(tf.constant(WORDS))["scores"].numpy().tolist() == [0.5, 0, -0.5]
    assert signature(WORDS[:0]).tolist() == []
    assert SavedSignature(folder, "other", "examples", "length")(WORDS).tolist() == [3, 3, 4]


def test_bytes_arrive_as_they_are(folder):
    signature = SavedSignature(folder, "other", "examples", "length")
    assert signature(np.array([b"a\0", b""], np.object_)).tolist() == [2, 0]


def test_threads_share_a_signature_and_two_models_know_nothing_of_each_other(folder):
    first, second = (SavedSignature(folder, "serving_default", "examples", "scores") for _ in range(2))
    del first
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: second(WORDS).tolist(), range(50)))
    assert answers == [[0.5, 0, -0.5]] * 50


@pytest.mark.parametrize(("name", "output"), [("serving_none", "scores"), ("serving_default", "prediction")])
def test_what_a_model_has_not_is_a_key_error(folder, name, output):
    with pytest.raises(KeyError):
        SavedSignature(folder, name, "examples", output)


def test_a_file_that_is_no_model_is_a_value_error(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
    with pytest.raises(ValueError, match=r"saved_model\.pb"):
        SavedSignature(str(tmp_path), "serving_default", "examples", "scores")
