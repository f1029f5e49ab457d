import gzip
import itertools
import logging
import resource
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.example import example_pb2

from ingest.errors import DataError
from ingest.examples import FILE_NAME, write_examples
from ingest.locations import Table
from ingest.plan import Plan
from ingest.splits import SPLITS, ColumnSplit, HashSplit


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "t.csv"
    path.write_text("id,text,x\n" + "".join(f"{i},word{i},{i / 8}\n" for i in range(300)))
    return Plan(
        (Table("t", (path,)),), "SELECT * FROM t", "q.sql", HashSplit(("id",), validation=0.2, test=0.2)
    )


def records(folder: Path, split: str) -> Iterator[bytes]:
    data = gzip.decompress((folder / f"Split-{split}" / FILE_NAME).read_bytes())
    while data:
        (length,) = struct.unpack_from("<Q", data)
        yield data[12 : 12 + length]
        data = data[16 + length :]


def rows(folder: Path, split: str) -> list[dict[str, list[Any]]]:
    found = []
    for record in records(folder, split):
        features = example_pb2.Example.FromString(record).features.feature
        found.append({name: values(feature) for name, feature in features.items()})
    return found


def values(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_splits_hold_all_rows_in_order_and_are_counted(plan: Plan, tmp_path: Path) -> None:
    written = write_examples(plan, tmp_path / "out")

    ids = {split: [row["id"][0] for row in rows(tmp_path / "out", split)] for split in SPLITS}
    assert {split: len(found) for split, found in ids.items()} == written.rows
    assert sorted(itertools.chain(*ids.values())) == list(range(300))
    assert all(found == sorted(found) for found in ids.values())
    assert rows(tmp_path / "out", "train")[0]["text"] == [f"word{ids['train'][0]}".encode()]


def test_equal_plans_give_equal_files(plan: Plan, tmp_path: Path) -> None:
    write_examples(plan, tmp_path / "one")
    write_examples(plan, tmp_path / "two")

    assert content(tmp_path / "one") == content(tmp_path / "two")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "split": st.sampled_from(SPLITS),
                "i": st.none() | st.integers(-(2**63), 2**63 - 1),
                "x": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
                "s": st.none() | st.text(st.characters(exclude_categories=["C"]), min_size=1),
            }
        ),
        max_size=20,
    )
)
def test_every_row_lands_in_its_split_with_its_values(
    tmp_path_factory: pytest.TempPathFactory, table: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    full = [{"split": split, "i": 1, "x": 0.5, "s": "s"} for split in SPLITS]
    table = full + table
    path = folder / "t.parquet"
    write_parquet(table, path)
    plan = Plan((Table("t", (path,)),), "SELECT * FROM t", "q.sql", ColumnSplit("split"))

    write_examples(plan, folder / "out")

    for split in SPLITS:
        expected = [
            {"i": listed(row["i"]), "x": listed(row["x"]), "s": listed(row["s"] and row["s"].encode())}
            for row in table
            if row["split"] == split
        ]
        assert rows(folder / "out", split) == expected


def write_parquet(table: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"split": pa.string(), "i": pa.int64(), "x": pa.float32(), "s": pa.string()})
    pq.write_table(pa.Table.from_pylist(table, schema), path)


def listed(value: Any) -> list[Any]:
    return [] if value is None else [value]


def test_progress_counts_up_to_the_total(
    plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "headworks.progress"):
        write_examples(plan, tmp_path / "out")

    done = [(record.done, record.total, record.unit) for record in caplog.records]  # type: ignore[attr-defined]
    assert done[-1] == (300, 300, "rows")
    assert done == sorted(done)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT id, nullif(1, 1) AS nothing FROM t", "column 'nothing' has no value in any of 300 rows"),
        ("SELECT id, CAST([] AS INTEGER[]) AS nothing FROM t", "column 'nothing' has no value in any of 300"),
        ("SELECT id, CAST(text AS INTEGER) AS n FROM t", "q.sql:1: Could not convert string 'word0'"),
        ("SELECT id, x * 1e300 AS x FROM t", "out of range"),
        ("SELECT id FROM t WHERE random() < 0.5", "must not depend on time or chance"),
    ],
)
def test_a_failure_leaves_nothing_behind(plan: Plan, tmp_path: Path, sql: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        write_examples(replace(plan, sql=sql), tmp_path / "out")

    assert not list((tmp_path / "out").glob("*"))


def test_a_full_disk_leaves_nothing_behind(plan: Plan, tmp_path: Path) -> None:
    sql = "SELECT id, md5(id::VARCHAR || r.range::VARCHAR) AS h FROM t, range(1000) r"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(DataError, match="out: cannot write examples: File too large"):
            write_examples(replace(plan, sql=sql), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert list((tmp_path / "out").iterdir()) == []


def test_written_splits_are_never_mixed_with_others(plan: Plan, tmp_path: Path) -> None:
    write_examples(plan, tmp_path / "out")
    before = content(tmp_path / "out")

    with pytest.raises(DataError, match="already holds examples"):
        write_examples(plan, tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_what_a_killed_process_left_is_replaced(plan: Plan, tmp_path: Path) -> None:
    left = tmp_path / "out" / ".partial" / "Split-train"
    left.mkdir(parents=True)
    (left / FILE_NAME).write_bytes(b"half")

    written = write_examples(plan, tmp_path / "out")

    assert Counter({split: len(rows(tmp_path / "out", split)) for split in SPLITS}) == written.rows
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "Split-test",
        "Split-train",
        "Split-validation",
    ]
