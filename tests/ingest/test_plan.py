from dataclasses import replace
from pathlib import Path

import pytest

from ingest.errors import DataError
from ingest.locations import Spans, Table
from ingest.plan import Plan, fingerprint, load, save
from ingest.splits import ColumnSplit, HashSplit, Split, TimeBoundaries, TimeFractions


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,x\n")
    split = HashSplit(("a",), validation=0.1, test=0.1)
    return Plan((Table("t", (path,)),), "SELECT a, b FROM t", "q.sql", split)


def test_layout_comments_names_and_places_do_not_count(plan: Plan, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "renamed.csv"
    moved.parent.mkdir()
    moved.write_bytes(plan.tables[0].paths[0].read_bytes())

    same = replace(
        plan,
        tables=(Table("t", (moved,)),),
        sql="-- all rows\nSELECT a,\n  b FROM t;",
        sql_source="other.sql",
        null_values=(),
    )
    assert fingerprint(same) == fingerprint(plan)


def test_whatever_decides_the_examples_counts(plan: Plan) -> None:
    path = plan.tables[0].paths[0]
    variants = [
        replace(plan, sql="SELECT b, a FROM t"),
        replace(plan, null_values=("NA",)),
        replace(plan, split=HashSplit(("a",), validation=0.1, test=0.2)),
        replace(plan, split=ColumnSplit("a")),
        replace(plan, spans=Spans(1, 2)),
        replace(plan, tables=(Table("u", (path,)),)),
        replace(plan, tables=(Table("t", (path, path)),)),
    ]
    prints = [fingerprint(plan), *(fingerprint(variant) for variant in variants)]
    path.write_text("a,b\n2,x\n")
    prints.append(fingerprint(plan))

    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    "split",
    [
        TimeBoundaries("a", "1", "2"),
        TimeFractions("a", 0.1, 0.2),
        ColumnSplit("a"),
        HashSplit(("a", "b"), 0.1, 0.2),
    ],
    ids=repr,
)
def test_a_saved_plan_is_read_back(plan: Plan, tmp_path: Path, split: Split) -> None:
    whole = replace(plan, split=split, spans=Spans(3, 4), null_values=("NA", "?"))

    path = save(whole, tmp_path / "plans", "abc")

    assert load(path) == whole
    assert [file.name for file in path.parent.iterdir()] == ["abc.json"]


def test_a_missing_file_or_plan_is_refused_by_name(plan: Plan, tmp_path: Path) -> None:
    gone = replace(plan, tables=(Table("t", (tmp_path / "gone.csv",)),))

    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        fingerprint(gone)
    with pytest.raises(DataError, match=r"gone\.json: cannot be read as a plan"):
        load(tmp_path / "gone.json")
