import io
import random
from typing import Any

import pyarrow as pa
import pytest

from beam_jobs.formats import tfrecords
from beam_jobs.formats.text import ReadSettings
from beam_jobs.formats.tfrecords import read_tfrecord
from beam_jobs.rows import Batch, DeadLetter, PredictionError
from ingest.records import to_examples, to_frames
from schemas.features import DType


def examples(**columns: Any) -> list[bytes]:
    return to_examples(pa.RecordBatch.from_pydict(columns)).to_pylist()


def frames(records: list[bytes]) -> bytes:
    return bytes(to_frames(pa.array(records, pa.binary())))


def read(data: bytes, **options: Any) -> list[Any]:
    return list(read_tfrecord(io.BytesIO(data), "f.tfrecord", ReadSettings(**options)))


def test_examples_come_with_their_features_and_as_they_were():
    records = examples(a=pa.array([1, None]), b=["x", "y"])

    (batch,) = read(frames(records))

    assert list(batch.examples) == records
    assert {name: column.to_pylist() for name, column in batch.columns.items()} == {
        "a": [[1], None],
        "b": [[b"x"], [b"y"]],
    }
    assert list(batch.positions) == [1, 2]
    assert read(frames(records), columns=("b",))[0].columns.keys() == {"b"}


def test_records_that_are_no_examples_are_dead_letters_and_cost_no_other():
    records = examples(a=list(range(50)))
    records[7] = b"\xffgarbage"
    records[30] = b"\x0a\xff"

    items = read(frames(records))

    dead = [item for item in items if isinstance(item, DeadLetter)]
    assert [(letter.position, letter.raw) for letter in dead] == [("8", b"\xffgarbage"), ("31", b"\x0a\xff")]
    assert dead[0].reason.startswith("the record is no tf.Example")
    rows: dict[int, Any] = {
        int(position): batch.columns["a"][index].as_py()
        for batch in items
        if batch not in dead
        for index, position in enumerate(batch.positions)
    }
    assert rows == {number: [number - 1] for number in range(1, 51) if number not in (8, 31)}


def test_a_feature_of_two_types_is_read_in_two_batches():
    records = examples(a=[1, 2]) + examples(a=["x", "y"])

    items = read(frames(records))

    assert [batch.columns["a"].to_pylist() for batch in items] == [[[1], [2]], [[b"x"], [b"y"]]]


TYPES = {"a": DType.INT, "b": DType.BYTES, "c": DType.FLOAT}


def test_features_of_the_types_that_they_ought_to_have_are_read_as_those_of_which_nothing_is_known():
    records = examples(a=pa.array([1, None, 3]), b=["x", "y", None], d=[1, 2, 3])
    data = frames(records)

    (known,) = read(data, columns=("a", "b", "c"), types=TYPES)
    (unknown,) = read(data, columns=("a", "b", "c"))

    assert {name: column.to_pylist() for name, column in known.columns.items()} == {
        name: column.to_pylist() for name, column in unknown.columns.items()
    }
    assert known.columns.keys() == {"a", "b"}, "no record has c"
    assert list(known.examples) == records


def test_features_of_other_types_than_they_ought_to_have_come_as_they_are():
    records = examples(a=[1, 2]) + examples(a=["x", "y"])

    items = read(frames(records), columns=("a",), types=TYPES)

    assert [batch.columns["a"].to_pylist() for batch in items] == [[[1], [2]], [[b"x"], [b"y"]]]


def test_records_that_are_no_examples_cost_no_other_where_types_are_known():
    records = examples(a=list(range(5)))
    records[3] = b"\xffgarbage"

    items = read(frames(records), columns=("a",), types=TYPES)

    assert [item.position for item in items if isinstance(item, DeadLetter)] == ["4"]
    assert sum(len(item) for item in items if isinstance(item, Batch)) == 4


@pytest.mark.parametrize("block", [1, 13, 1 << 15])
def test_records_are_found_however_the_file_is_read(monkeypatch, block):
    monkeypatch.setattr(tfrecords, "_BLOCK_BYTES", block)
    kept = examples(a=["x" * length for length in (0, 1, 40, 300)])
    long = examples(a=["y" * 5000])

    before, dead, after = read(frames([*kept, *long, *kept]), max_row_bytes=600, rows=4)

    assert list(before.examples) == kept == list(after.examples)
    assert (dead.position, len(dead.raw)) == ("5", 600)


def test_a_large_record_is_asked_for_at_once():
    """Each read has all that is held copied: a piece at a time, that grows with the square of the record."""

    class Counted(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1) -> bytes:
            self.reads += 1
            return super().read(size)

    stream = Counted(frames(examples(a=["x" * (1 << 20)])))

    (batch,) = read_tfrecord(stream, "f.tfrecord", ReadSettings(max_row_bytes=1 << 21))

    assert isinstance(batch, Batch)
    assert stream.reads <= 3


def test_a_record_whose_bytes_changed_is_a_dead_letter():
    data = bytearray(frames(examples(a=[1, 2, 3])))
    data[len(data) // 2] ^= 1

    items = read(bytes(data))

    (dead,) = (item for item in items if isinstance(item, DeadLetter))
    assert (dead.position, dead.reason) == ("2", "the record's checksum does not match its bytes")
    assert sum(len(item) for item in items if isinstance(item, Batch)) == 2


def test_a_record_that_is_too_long_is_a_dead_letter():
    records = [*examples(a=["x" * 10_000]), *examples(a=["y"])]

    dead, batch = read(frames(records), max_row_bytes=5000)

    assert dead.reason.endswith("bytes long, more than 5000; the first 4096 are kept here")
    assert dead.raw == records[0][:4096]
    assert list(batch.positions) == [2]


def test_an_empty_file_has_no_rows():
    assert read(b"") == []


def test_what_is_no_tfrecord_is_an_error_that_names_the_file():
    with pytest.raises(PredictionError, match="this is no TFRecord file"):
        read(b"a,b,c\n1,2,3\n4,5,6\n")


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_file_that_is_cut_off_is_no_whole_one(cut):
    with pytest.raises(EOFError):
        read(frames(examples(a=[1, 2, 3]))[:-cut])


def test_no_bytes_do_worse_than_an_error():
    chance = random.Random(7)
    for _ in range(200):
        data = bytearray(frames(examples(a=["x" * 20] * 5)))
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            items = read(bytes(data))
        except (EOFError, PredictionError):
            continue
        assert sum(len(item) if isinstance(item, Batch) else 1 for item in items) == 5
