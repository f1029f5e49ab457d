"""Bytes in LiteRT against strings in TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st

from schemas.features import MISSING_INT
from tflite import text
from transforms import ops

WIDTH = 64
BUCKETS = 1_000_003
WORDS = 4
WORD_WIDTH = 16

TEXTS = st.binary(max_size=WIDTH).map(lambda value: value.replace(b"\0", b"0"))
LETTERS = st.text(st.sampled_from("abz AZ\t\n\v\f\r.-'09éÉßØøŽžЖжΩωԱա字\u00a0"), max_size=WIDTH)


class OnDevice:
    """A function of one tensor, run by LiteRT."""

    def __init__(self, function, spec):
        traced = tf.function(function, autograph=False).get_concrete_function(spec)
        model = tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()
        self._interpreter = Interpreter(model_content=model, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, value):
        self._interpreter.set_tensor(self._input, value)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)


def padded(value, width=WIDTH):
    return np.frombuffer(value[:width].ljust(width, b"\0"), np.uint8).reshape(1, width)


def bucket(value):
    return int(tf.strings.to_hash_bucket_fast(value, BUCKETS)) + 1 if value else 0


@pytest.fixture(scope="module")
def hashed():
    return OnDevice(
        lambda raw: text.hash_ids(tf.cast(raw, tf.int32), [BUCKETS]), tf.TensorSpec([1, WIDTH], tf.uint8)
    )


@pytest.fixture(scope="module")
def hashed_integer():
    def hash_ids(values):
        return text.hash_ids(text.decimal(values, ops.is_present(values), min(text.HASH_WIDTHS)), [BUCKETS])

    return OnDevice(hash_ids, tf.TensorSpec([1], tf.int64))


@pytest.fixture(scope="module", params=[False, True], ids=["any", "ascii"])
def tokens(request):
    is_ascii = request.param
    device = OnDevice(
        lambda raw: text.tokens(raw, WORDS, WORD_WIDTH, is_ascii=is_ascii),
        tf.TensorSpec([1, WIDTH], tf.uint8),
    )
    return is_ascii, device


@pytest.mark.parametrize("length", range(WIDTH + 1))
def test_texts_of_every_length_fall_into_tensorflows_buckets(hashed, length):
    value = bytes(1 + (37 * place + 11 * length) % 255 for place in range(length))
    assert hashed(padded(value)).tolist() == [bucket(value)]


@given(TEXTS)
def test_any_bytes_fall_into_tensorflows_bucket(hashed, value):
    assert hashed(padded(value)).tolist() == [bucket(value)]


@given(st.integers(-(2**63), 2**63 - 1) | st.integers(-1000, 1000))
def test_integers_hash_as_their_digits(hashed_integer, value):
    written = b"" if value == MISSING_INT else str(value).encode()
    assert hashed_integer(np.array([value])).tolist() == [bucket(written)]


@pytest.mark.parametrize("exponent", range(19))
def test_integers_at_the_powers_of_ten_hash_as_their_digits(hashed_integer, exponent):
    for value in (10**exponent, 10**exponent - 1, -(10**exponent), 9 * 10**exponent):
        assert hashed_integer(np.array([value])).tolist() == [bucket(str(value).encode())], value


@given(LETTERS)
def test_words_are_those_of_tensorflow(tokens, value):
    is_ascii, device = tokens
    raw = value.encode()[:WIDTH].decode(errors="ignore").encode()
    words = ops.tokens(tf.constant([raw]), WORDS).numpy()[0]
    found = device(padded(raw))
    expected = text.pack([word[:WORD_WIDTH] for word in words], WORD_WIDTH)
    # Of words in other letters, those found for ASCII only say nothing but that they are none of these.
    known = [not is_ascii or word.isascii() for word in words]
    np.testing.assert_array_equal(found[known], expected[known])


def test_fewer_bytes_than_words_leave_the_rest_empty():
    found = text.tokens(padded(b"a b", 8), 9, 8, is_ascii=True).numpy()
    assert found.ravel().tolist() == [ord("a"), ord("b"), 0, 0, 0, 0, 0, 0, 0]


def test_a_key_is_found_where_all_of_it_is_equal():
    entries = [b"", b"same start A", b"same start B", b"short"]
    table = text.pack(entries, 16)
    unseen = [b"same start C", b"shor", b"shorter", b"tart A"]
    rows = text.keys(tf.concat([padded(value, 16) for value in entries + unseen], 0))
    assert text.positions(rows, [table]).numpy().tolist() == [0, 1, 2, 3, 4, 4, 4, 4]


def test_every_row_may_have_a_table_of_its_own():
    tables = [np.array([[MISSING_INT], [7]]), np.array([[MISSING_INT], [1], [7], [9]])]
    for values, expected in (([7, 7], [1, 2]), ([8, 8], [2, 4]), ([MISSING_INT] * 2, [0, 0])):
        assert (
            text.positions(tf.reshape(tf.constant(values, tf.int64), [2, 1]), tables).numpy().tolist()
            == expected
        )


@pytest.mark.parametrize(("length", "width"), [(0, 8), (7, 8), (8, 16), (15, 16), (16, 24)])
def test_a_width_shows_that_the_longest_text_ends(length, width):
    assert text.padded_width(length) == width
