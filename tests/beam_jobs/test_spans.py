"""Scored events as spans of data."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs.rows import PredictionError
from beam_jobs.scored import ScoredRow
from beam_jobs.spans import Landing, land, to_table
from beam_jobs.windows import Windows
from ingest.locations import available_spans, resolve_table
from schemas.features import DType

COLUMNS = {"key": DType.BYTES, "x": DType.FLOAT, "n": DType.INT}
DAY = Windows(86400.0)


def table(*names, **inputs):
    time = datetime(2013, 6, 1, 12, tzinfo=UTC)
    said = {"prediction": "yes", "model_version": 1}
    return to_table(
        [
            ScoredRow(
                name,
                name,
                time,
                {"key": name, **inputs},
                {"key": name, "prediction_id": name, **said},
                1,
                "yes",
            )
            for name in names
        ],
        COLUMNS,
    )


def landed(folder):
    return pq.read_table(folder / "events.parquet")


def test_a_span_is_found_and_read_where_the_pipeline_looks_for_it(tmp_path):
    landing = Landing(f"{tmp_path}/events-{{SPAN:6}}", DAY)
    start = datetime(2013, 6, 1, tzinfo=UTC).timestamp()
    land(table("a", "b"), landing.folder(start))
    number = int(start // 86400)
    location = "events-{SPAN:6}"
    assert available_spans([location], tmp_path) == (number,)
    assert resolve_table("events", [location], tmp_path, [number]).paths == (
        tmp_path / f"events-{number:06}" / "events.parquet",
    )


def test_columns_have_the_types_of_the_schema_whatever_the_messages_held(tmp_path):
    rows = table("a", x=1, n=2.0)
    assert rows.schema.field("x").type == pa.float64()
    [row] = rows.to_pylist()
    assert (row["x"], row["n"], row["prediction"]) == (1.0, 2, "yes")


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": "one"},
        {"x": True},
        {"x": 10**400},
        {"n": float("nan")},
        {"n": 1.5},
        {"n": 10**30},
        {"n": [1]},
        {"key": "\ud800"},
        {"key": b"\xff"},
        {"key": {}},
    ],
    ids=str,
)
def test_a_value_that_is_not_of_its_column_s_type_is_left_out(wrong):
    [row] = table("a", **{"x": 0.5, "n": 3, **wrong}).to_pylist()
    assert {name: row[name] for name in COLUMNS} == {"key": "a", "x": 0.5, "n": 3} | dict.fromkeys(wrong)


def test_what_is_late_is_added_and_what_comes_again_is_not(tmp_path):
    folder = tmp_path / "15857"
    land(table("a", "b", "a"), folder)
    land(table("b", "c", "c"), folder)
    assert landed(folder)["key"].to_pylist() == ["a", "b", "c"]
    assert [file.name for file in folder.iterdir()] == ["events.parquet"]


def test_a_span_is_seen_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "15857"
    seen = []
    rename = Path.rename

    def spy(self, target):
        seen.extend([available_spans(["{SPAN}"], tmp_path), landed(self)["key"].to_pylist()])
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", spy)
    land(table("a"), folder)
    assert seen == [(), ["a"]]
    assert available_spans(["{SPAN}"], tmp_path) == (15857,)


def test_what_a_killed_job_left_is_cleared(tmp_path):
    (tmp_path / ".partial-15857-abc").mkdir()
    land(table("a"), tmp_path / "15857")
    assert [path.name for path in tmp_path.iterdir()] == ["15857"]


def test_a_span_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "events").write_text("a file")
    with pytest.raises(PredictionError, match=r"events/1/events\.parquet: the span cannot be written"):
        land(table("a"), tmp_path / "events" / "1")


@pytest.mark.parametrize("location", ["events", "{SPAN}/events", "gs://bucket/{SPAN}"])
def test_a_location_that_cannot_be_landed_in_is_refused(location):
    with pytest.raises(PredictionError, match="SPAN"):
        Landing(location, DAY)
