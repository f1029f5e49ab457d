"""A batch of messages as a model scores it."""

from datetime import UTC, datetime

import pytest
import tensorflow as tf

from beam_jobs.messages import Message, Reader
from beam_jobs.streaming import bucket, first_of_each, load, nowhere, score
from tests.beam_jobs.pushed_model import chance

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)
LATER = datetime(2013, 6, 2, 12, tzinfo=UTC)
READER = Reader("subscription", time_attribute="at")


@pytest.fixture(scope="module")
def scorer(serving):
    return load(f"{serving}/1", ["hour"])


def message(name, data, published=NOON, **attributes):
    return Message(name, data, {"at": "2013-06-01T10:00:00Z", **attributes}, published)


def outputs(messages, scorer, reader=READER):
    return [dict(row.output) for row in score(messages, reader, scorer).rows]


def test_a_message_that_is_published_again_makes_the_same_row(scorer):
    data = b'{"day": "d1", "humidity": 80, "hour": 7}'
    [first] = outputs([message("1", data)], scorer)
    [again] = outputs([message("2", data, LATER)], scorer)
    assert first == again
    assert first["predicted_at"] == datetime(2013, 6, 1, 10, tzinfo=UTC)
    assert (first["model_version"], first["hour"]) == (1, 7)


def test_an_example_scores_as_the_row_of_the_same_values(scorer):
    features = {
        "day": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"d1"])),
        "humidity": tf.train.Feature(float_list=tf.train.FloatList(value=[80.0])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    reader = Reader("subscription", "example", time_attribute="at")
    assert outputs([message("1", example)], scorer, reader) == outputs(
        [message("1", b'{"day": "d1", "humidity": 80}')], scorer
    )


def test_rows_keep_to_their_messages_where_others_between_them_fall_out(scorer):
    data = [b'{"day": "d1", "humidity": 10}', b"{", b'{"day": "d2"}', b'{"day": "d3", "humidity": 30}']
    scored = score([message(str(n), row) for n, row in enumerate(data)], READER, scorer)
    assert [(row.message_id, row.output["day"]) for row in scored.rows] == [("0", "d1"), ("3", "d3")]
    assert [row.score for row in scored.rows] == pytest.approx([chance(10), chance(30)])
    assert sorted(member.message_id for member in scored.members) == ["0", "1", "2", "3"]


def test_what_is_written_is_the_first_row_of_a_name(scorer):
    data = [
        b'{"day": "d1", "humidity": 10}',
        b'{"day": "d2", "humidity": 10}',
        b'{"day": "d1", "humidity": 30}',
    ]
    scored = score([message(str(n), row) for n, row in enumerate(data)], READER, scorer)
    written = first_of_each(scored.rows)
    assert [row["day"] for row in written] == ["d1", "d2"]
    assert written[0]["probability_wet_day"] == pytest.approx(chance(10))


def test_one_prediction_id_is_always_in_one_bucket():
    def bucket_of(name, data, **attributes):
        return bucket(message(name, data, **attributes), READER, ("day",), 1000)

    once, again = b'{"day": "d1", "humidity": 10}', b'{"day": "d1", "humidity": 30}'
    assert bucket_of("1", once) == bucket_of("2", again) == 259, "in every process, so that workers agree"
    assert bucket_of("1", once, id="mine") == bucket_of("2", b'{"day": "d2"}', id="mine")
    assert len({bucket_of("1", b'{"day": "d%d"}' % number) for number in range(100)}) > 50
    assert bucket_of("1", b"{") == bucket_of("1", b"{"), "what cannot be read goes by the name of its message"


def test_a_column_to_carry_that_is_nowhere_is_told(scorer):
    rows = score([message("1", b'{"day": "d1", "humidity": 10, "note": null}')], READER, scorer).rows
    assert list(nowhere(["hour", "note", "hour,note"], scorer.pushed, rows)) == ["hour,note"]
    assert list(nowhere(["hour,note"], scorer.pushed, ())) == [], "no row, no saying"
