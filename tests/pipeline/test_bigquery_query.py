"""What a run's values do to the queries, and which runs read the same."""

import pytest

from ingest.errors import DataError
from ingest.splits import ColumnSplit, HashSplit, TimeBoundaries
from pipeline.bigquery_query import Binding, Reading, SplitQuery, fingerprint, split_queries

QUERY = "SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '$snapshot_time' WHERE d BETWEEN $first_span AND $last_span"


def test_the_window_ends_at_the_span_and_does_not_begin_below_the_first():
    assert Binding(12, 4, "2026-01-31T06:00:00Z").bind(QUERY).endswith("BETWEEN 9 AND 12")
    assert Binding(2, 4, "2026-01-31").bind(QUERY).endswith("BETWEEN 0 AND 2")
    assert Binding(2, None, "2026-01-31").bind(QUERY).endswith("BETWEEN 0 AND 2")


def test_other_dollars_stay():
    assert Binding().bind("SELECT r'^a$', '$$', '$first_spans'") == "SELECT r'^a$', '$$', '$first_spans'"


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        (Binding(), "the query has .snapshot_time, and the run was given no snapshot_time"),
        (Binding(snapshot_time="2026-01-31"), "the query has .first_span, and the run was given no span"),
        (Binding(3, None, "yesterday"), "snapshot_time 'yesterday': want a date or time"),
        (Binding(-1, None, "2026-01-31"), "span -1: want 0 or more"),
    ],
)
def test_a_parameter_without_a_proper_value_is_an_error(binding, message):
    with pytest.raises(DataError, match=message):
        binding.bind(QUERY)


def test_the_fingerprint_is_that_of_the_instant_the_span_and_the_query():
    def digest(moment="2026-01-31T06:00:00Z", span=3, sql=QUERY, floats=()):
        return fingerprint([SplitQuery("train", sql)], Reading(floats), Binding(span, 1, moment))

    assert digest() == digest("2026-01-31T07:00:00+01:00") == digest("2026-01-31 06:00")
    others = [digest("2026-01-31T06:00:01Z"), digest(span=4), digest(sql=QUERY + " "), digest(floats=("x",))]
    assert len({digest(), *others}) == 5


def test_a_boundary_is_a_number_a_day_or_a_time_in_utc():
    def train(first, second):
        return split_queries("SELECT 1", TimeBoundaries("at", first, second))[0].sql

    assert "`at` >= '2013-10-01' THEN" in train("2013-09-01", "2013-10-01T02:00:00+02:00")
    assert "`at` >= '2013-10-01 06:30:00' THEN" in train("2013-09-01", "2013-10-01T06:30:00")
    assert "`at` >= 20131001 THEN" in train("20130901", "20131001")


def test_a_column_that_names_the_split_is_not_among_the_rows():
    names = {"train": "past", "validation": "near", "test": "it's new"}
    queries = split_queries("SELECT 1", ColumnSplit("part"), names)
    assert [query.split for query in queries] == ["train", "validation", "test"]
    assert queries[2].sql.startswith("SELECT * EXCEPT (`part`)")
    assert r"WHEN 'it\'s new' THEN 'test'" in queries[0].sql


def test_a_quotation_mark_in_a_name_stays_in_the_name():
    [query, *_] = split_queries("SELECT 1", HashSplit(("a`b",), 0.1, 0.2))
    assert r"CAST(`a\`b` AS STRING)" in query.sql
