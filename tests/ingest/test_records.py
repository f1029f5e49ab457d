from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.example import example_pb2

from ingest.records import to_examples, to_frames

INTS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(width=32, allow_nan=False)
BYTES = st.binary(max_size=300)


def columns(rows: int) -> st.SearchStrategy[list[pa.Array]]:
    def of(values: st.SearchStrategy[Any], type_: pa.DataType) -> st.SearchStrategy[pa.Array]:
        scalar = st.lists(st.none() | values, min_size=rows, max_size=rows)
        many = st.lists(st.none() | st.lists(values, max_size=4), min_size=rows, max_size=rows)
        return scalar.map(lambda v: pa.array(v, type_)) | many.map(lambda v: pa.array(v, pa.list_(type_)))

    kinds = of(INTS, pa.int64()), of(FLOATS, pa.float32()), of(BYTES, pa.binary()), of(st.text(), pa.string())
    return st.lists(st.one_of(*kinds), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(arrays=st.integers(1, 6).flatmap(columns), start=st.integers(0, 5))
def test_every_value_survives(arrays: list[pa.Array], start: int) -> None:
    names = [f"{'long' * 40 if i % 2 else ''}é{i}" for i in range(len(arrays))]
    # A slice has offsets of its own into shared buffers.
    batch = pa.RecordBatch.from_arrays(arrays, names).slice(min(start, len(arrays[0]) - 1))

    for row, record in zip(batch.to_pylist(), to_examples(batch).to_pylist(), strict=True):
        message = example_pb2.Example.FromString(record)
        assert {name: values(feature) for name, feature in message.features.feature.items()} == {
            name: as_list(value) for name, value in row.items()
        }


def values(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


def as_list(value: Any) -> list[Any]:
    found = [] if value is None else value if isinstance(value, list) else [value]
    return [item.encode() if isinstance(item, str) else item for item in found]


def test_equal_rows_give_equal_bytes_whatever_the_order_of_columns() -> None:
    ab = pa.RecordBatch.from_pydict({"a": [1], "b": ["x"]})

    assert to_examples(ab) == to_examples(ab.select(["b", "a"]))


def test_tensorflow_reads_the_frames(tmp_path: Path) -> None:
    import tensorflow as tf

    records = pa.array([b"", b"one", b"x" * 70_000], pa.binary())
    path = tmp_path / "frames"
    path.write_bytes(b"".join(map(bytes, (to_frames(records), to_frames(records.slice(1))))))

    read = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    assert read == [*records.to_pylist(), *records.to_pylist()[1:]]
