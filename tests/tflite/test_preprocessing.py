"""Every kind of feature, on a device and on the server: the same columns."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from schemas.features import MISSING_INT, DType, Feature, FeatureSet, Kind
from tests.tflite.every_kind import FEATURES, ROWS, Device, Server
from tflite.analysed import Analysed, DeviceError
from tflite.device_model import convert
from tflite.preprocessing import TEXT_WIDTH, input_layout, prepare

COLUMNS = FEATURES.columns()
BY_NAME = {feature.name: feature for feature in FEATURES}


class Both:
    """The same rows on the server and on a device."""

    def __init__(self, graph):
        self.analysed = Analysed.read(FEATURES, graph)
        self._server = Server(graph)
        # The label is a number, so that the answer is the logits: here all columns, one after another.
        model = convert(
            lambda columns: tf.concat([tf.cast(columns[c.name], tf.float32) for c in COLUMNS], 1),
            FEATURES,
            self.analysed,
        )
        self._device = Device(model, input_layout(FEATURES, self.analysed))

    def agree(self, rows):
        """Fails, naming column and row, where a column differs."""
        expected = self._server.columns(rows)
        answers = np.concatenate([self._device(row)["prediction"] for row in rows])
        found = np.split(answers, np.cumsum([column.width for column in COLUMNS])[:-1], axis=1)
        for column, values in zip(COLUMNS, found, strict=True):
            tolerance = 1e-6 if column.form == "dense" else 0
            np.testing.assert_allclose(
                values,
                expected[column.name],
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"{column.name} of {rows}",
            )


@pytest.fixture(scope="module")
def both(every_kind_graph):
    return Both(every_kind_graph)


def rows_of(dtype, values, *, without=()):
    """A row for each value, which is that of all features of the type."""
    names = [feature.name for feature in FEATURES if feature.dtype is dtype and feature.name not in without]
    return [dict.fromkeys(names, value) for value in values]


def test_rows_that_were_analysed(both):
    both.agree(ROWS)


def test_a_row_without_any_value(both):
    both.agree([{}])


def test_floats_that_are_not_finite_are_missing(both):
    both.agree(rows_of(DType.FLOAT, [np.nan, np.inf, -np.inf]))


def test_extreme_floats(both):
    largest, least = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
    values = [largest, -largest, 3e38, 2.0**64, -1e20, least, -least, 1e-45, -1e-45, 1e-20, 0.0, -0.0]
    # Where no float32 holds the period, only so many of them are told apart.
    both.agree(rows_of(DType.FLOAT, values, without=["turn"]))


def test_small_logarithms_keep_their_digits(both):
    both.agree([{"miles": value} for value in (1e-9, -1e-8, 1e-7, 6e-8, 1e-5, -1e-3, 0.1)])


def test_means_of_many_digits(both):
    both.agree([{"pressure": 16777.216 + step / 512} for step in range(-8, 8)])
    both.agree([{"stamp": 1_700_000_000 + step} for step in range(0, 500, 97)])


def test_extreme_integers(both):
    values = [2**63 - 1, -(2**63) + 1, 2**62, -(2**62) - 1, 2**53 + 1, MISSING_INT]
    # There the server's doubles have lost the place in the cycle.
    both.agree(rows_of(DType.INT, values, without=["hour", "day", "orbit"]))


def test_integers_up_to_the_last_that_a_double_holds(both):
    values = [2**53, -(2**53), 10**15 + 7, 2**31, -1, 0, 1, 9, 23, 24, -24, 365, 366, 1461]
    both.agree(rows_of(DType.INT, values))


def test_cycles_of_floats(both):
    both.agree([{"angle": value} for value in (359.99997, 360.0, -1e-20, 1e6, 720.5)])
    both.agree([{"turn": value} for value in (0.3, 0.15, -0.1, 0.29999998, 90.05)])


@pytest.mark.parametrize("name", ["seconds", "ratio", "no ratio"])
def test_values_at_the_boundaries_and_beside_them(both, name):
    convert_to = int if BY_NAME[name].dtype is DType.INT else float
    for boundary in np.array(both.analysed.boundaries[name], np.float32):
        step = np.float32(1) if BY_NAME[name].dtype is DType.INT else abs(np.spacing(boundary))
        both.agree([{name: convert_to(value)} for value in (boundary - step, boundary, boundary + step)])


@pytest.mark.parametrize("name", ["company", "street", "never"])
def test_entries_of_a_vocabulary_and_texts_that_nearly_are(both, name):
    for token in both.analysed.vocabularies[name]:
        near = [token, token[:-1], token + b"x", token.swapcase(), b" " + token, token * 9]
        both.agree([{name: value} for value in near])


def test_texts_that_are_no_utf8_or_empty(both):
    both.agree(rows_of(DType.BYTES, [b"", b"\xff\xfe", b"\xc3", b"caf\xe9", b"\xe5\xad\x97", b"7"]))


def test_hashed_texts_of_every_length(both):
    both.agree([{"card": b"k" * length, "ticket": b"0123456789abcdef" * 4} for length in range(65)])
    both.agree([{"ticket": bytes(range(200, 200 + length))} for length in range(1, 56)])


def test_words(both):
    written = [
        "Very NICE  one",
        "\t\n very\vnice\fone\rtwo",
        "two " * 9,
        "GRÖẞE größe ЖУК Ärger",
        "x" * 40 + " nice",
    ]
    values = [value.lower().encode() if "ẞ" in value else value.encode() for value in written]
    both.agree([{"remark": value, "bemerkung": value} for value in values])


def test_what_is_behind_the_words_that_count_may_be_cut(both):
    both.agree([{"remark": b"one two nice " + b"very " * TEXT_WIDTH}])


def test_an_extreme_value_leaves_the_other_features_as_they_are(both):
    both.agree([{"fare": 2.5, "stamp": 2**63 - 1, "miles": 3e38}])


def test_the_layout_names_every_feature_in_order(both):
    layout = input_layout(FEATURES, both.analysed)
    assert [place.name for place in layout] == [feature.name for feature in FEATURES]
    widths = {place.name: place.width for place in layout if place.width}
    assert widths == {
        "company": 8,
        "street": 24,
        "never": 40,
        "card": 64,
        "ticket": 64,
        "remark": TEXT_WIDTH,
        "bemerkung": TEXT_WIDTH,
    }
    assert layout[9].graph_name == "no_ratio"


def refused(feature):
    raw = {feature.graph_name: tf.zeros([1], tf.int64)}
    with pytest.raises(DeviceError) as caught:
        prepare(raw, FeatureSet((feature,), FEATURES.label), Analysed({}, {}, {}))
    return str(caught.value)


def test_an_encoder_is_refused_by_name():
    photo = Feature("photo", DType.BYTES, Kind.ENCODED, encoder="clip")
    with pytest.raises(DeviceError, match=r"'photo' \(encoded\)") as caught:
        input_layout(FeatureSet((photo,), FEATURES.label), Analysed({}, {}, {}))
    assert str(caught.value) == refused(photo)
    assert "leave the feature out" in refused(photo)


def test_a_period_beyond_integers_is_refused_by_name():
    assert "'hour' (cyclical): a period of 1e+30" in refused(replace(BY_NAME["hour"], period=1e30))
