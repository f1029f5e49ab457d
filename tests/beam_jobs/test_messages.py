"""Messages read as rows."""

from datetime import UTC, datetime

import pytest

from beam_jobs.messages import LONGEST_BYTES, Message, Reader, event_time

PUBLISHED = datetime(2013, 6, 1, 12, tzinfo=UTC)
READER = Reader("subscription")


def message(data, **attributes):
    return Message("7", data, attributes, PUBLISHED)


def read(data, reader=READER, **attributes):
    return reader.read([message(data, **attributes)])


@pytest.mark.parametrize("text", ["1370088000000", "2013-06-01T12:00:00Z", "2013-06-01T14:00:00+02:00"])
def test_event_time_is_milliseconds_or_rfc_3339(text):
    assert event_time({"at": text}, "at", PUBLISHED) == PUBLISHED


def test_a_message_without_the_attribute_happened_when_it_was_published():
    assert event_time({}, "at", PUBLISHED) == PUBLISHED


@pytest.mark.parametrize(
    "text",
    ["noon", "", "2013-06-01T12:00:00", "9" * 30, "0001-01-01T00:00:00+23:00", "9999-12-31T23:00:00-23:00"],
)
def test_a_time_that_cannot_be_read_is_a_dead_letter_that_says_so(text):
    _, [letter] = read(b"{}", Reader("subscription", time_attribute="at"), at=text)
    assert letter.reason.startswith(f"attribute at is '{text}'")
    assert (letter.position, letter.raw) == ("7", b"{}")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "the text is no JSON"),
        (b"\xff", "not UTF-8 at byte 1"),
        (b"[1]", "no JSON object: '[1]'"),
        (b'{"a": 1, "a": 2}', "names 'a' twice"),
        (b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}", "nested more than 64 deep"),
        (b'{"a": ' + b"[" * 990 + b"]" * 990 + b"}", "nested more than 64 deep"),
        (b"[" * 100_000, "nested more than 64 deep"),
        (b'{"a": "' + b"x" * LONGEST_BYTES + b'"}', "is 1048585 bytes long, more than 1048576"),
    ],
    ids=["cut short", "no text", "a list", "a name twice", "deep", "at Python's limit", "beyond it", "long"],
)
def test_what_is_no_row_is_a_dead_letter_with_its_reason_as_it_came(data, reason):
    events, [letter] = read(data)
    assert (events, letter.raw) == ([], data)
    assert reason in letter.reason


def test_an_example_is_read_as_its_first_values():
    import tensorflow as tf

    def values(**lists):
        return tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString()

    data = values(
        x=tf.train.Feature(float_list=tf.train.FloatList(value=[1.5, 2.0])),
        name=tf.train.Feature(bytes_list=tf.train.BytesList(value=["né".encode()])),
        bad=tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"\xff"])),
        none=tf.train.Feature(),
    )
    reader = Reader("subscription", "example")
    [event], [] = read(data, reader)
    assert event.values == {"x": 1.5, "name": "né", "bad": b"\xff", "none": None}
    _, [letter] = read(b"\xff\xff", reader)
    assert letter.reason.startswith("not a serialized tf.Example")


def prediction_id(data, key=(), **attributes):
    [event], [] = read(data, **attributes)
    return READER.prediction_id(event, key)


def test_a_prediction_is_named_by_the_attribute_then_the_key_then_the_payload():
    assert prediction_id(b'{"a": 1}', id="mine") == "mine"
    assert prediction_id(b'{"a": 1, "b": 2}', ["a"]) == prediction_id(b'{"a": 1, "b": 3}', ["a"])
    assert prediction_id(b'{"a": 1, "b": 2}', ["a"]) != prediction_id(b'{"a": 2, "b": 2}', ["a"])
    assert prediction_id(b'{"a": 1}') == prediction_id(b'{"a": 1}') != prediction_id(b'{"a": 2}')


def test_a_key_of_several_columns_does_not_run_them_together():
    assert prediction_id(b'{"a": "1", "b": "23"}', ["a", "b"]) != prediction_id(
        b'{"a": "12", "b": "3"}', ["a", "b"]
    )


def test_rows_of_different_columns_make_one_batch():
    events, [] = READER.read([message(b'{"a": 1}'), message(b'{"b": 2}')])
    batch = READER.batch(events)
    assert batch.columns == {"a": [1, None], "b": [None, 2]}
    assert batch.raw == [b'{"a": 1}', b'{"b": 2}']
