"""Sinks for a laptop."""

import json
import sqlite3
from datetime import UTC, datetime

import pytest

from beam_jobs.row_sinks import JsonLinesSink, SqliteDeadLetters, SqliteSink, fitting
from beam_jobs.rows import DeadLetter, PredictionError


def rows(path, table):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "out.db")


def test_the_first_row_of_a_name_stays(path):
    sink = SqliteSink(path, "predictions", "id")
    sink.write([{"id": "a", "score": 1}])
    sink.write([{"id": "a", "score": 2}, {"id": "b", "score": 3}])
    assert rows(path, "predictions") == [("a", 1), ("b", 3)]


def test_a_column_that_comes_later_is_added(path):
    sink = SqliteSink(path, "predictions", "id")
    sink.write([{"id": "a"}])
    sink.write([{"id": "b", 'odd "name"': datetime(2013, 6, 1, tzinfo=UTC), "missing": {"x": 1}}])
    assert rows(path, "predictions") == [("a", None, None), ("b", "2013-06-01T00:00:00+00:00", '{"x": 1}')]


def test_a_batch_that_fails_leaves_nothing_of_it_and_the_next_is_written(path):
    sink = SqliteSink(path, "predictions", "id")
    sink.write([{"id": "a"}])
    with pytest.raises(PredictionError, match=r"out\.db: cannot be written"):
        sink.write([{"id": "b"}, {"id": object()}])
    sink.write([{"id": "c"}])
    assert rows(path, "predictions") == [("a",), ("c",)]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(PredictionError, match=r"nowhere/out\.db: cannot be written"):
        SqliteSink(str(tmp_path / "nowhere" / "out.db"), "predictions", "id").write([{"id": "a"}])
    with pytest.raises(PredictionError, match=r"nowhere/out\.jsonl: cannot be written"):
        JsonLinesSink(str(tmp_path / "nowhere" / "out.jsonl")).write([{"id": "a"}])


def test_of_a_row_that_is_too_long_for_a_sink_the_beginning_is_kept_and_the_reason_says_so():
    letter = DeadLetter("subscription", "7", "not JSON", b"{abc")
    assert fitting(letter, 4) is letter
    cut = fitting(letter, 3)
    assert cut.raw == b"{ab"
    assert cut.reason == "(only the first 3 of 4 bytes are kept here) not JSON"


def test_dead_letters_are_kept_once_for_each_position(path):
    letter = DeadLetter("subscription", "7", "not JSON", b"{")
    for _ in range(2):
        SqliteDeadLetters(path).write([letter])
    assert rows(path, "dead_letters") == [("7", "subscription", "not JSON", b"{")]


def test_json_lines_are_added(tmp_path):
    sink = JsonLinesSink(str(tmp_path / "out.jsonl"))
    for number in range(2):
        sink.write([{"id": number}])
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"id": 0}, {"id": 1}]
