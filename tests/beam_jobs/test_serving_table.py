"""Predictions made in advance, looked up by key."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs.core import Direct
from beam_jobs.listed_rows import listed
from beam_jobs.rows import PredictionError
from beam_jobs.serving_table import ServingTable, lookup, most_requested, scored_by, write
from ingest.errors import DataError
from ingest.locations import Table
from tests.beam_jobs.pushed_model import chance

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def score(chunk):
    """Says of each row what it is, as the core does: two batches a chunk."""
    rows = chunk.num_rows
    answers = {
        "prediction": pa.array(["yes"] * rows),
        "probability_no": pa.array([0.25] * rows),
        "probability_yes": pa.array([0.75] * rows),
        "model_version": pa.array([3] * rows),
        "run_id": pa.array(["r"] * rows),
        "predicted_at": pa.array([AT] * rows, pa.timestamp("us", tz="UTC")),
    }
    scored = pa.Table.from_pydict({**{name: chunk[name] for name in chunk.column_names}, **answers})
    yield from scored.to_batches(max_chunksize=max(1, rows // 2))


def query(sql, tables=()):
    return listed(tables, sql, "combinations.sql")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.sqlite"


@pytest.fixture
def routes(tmp_path):
    file = tmp_path / "routes.csv"
    file.write_text("origin,dest\nJFK,LAX\nLGA,ORD\nEWR,\n")
    return Table("routes", (file,))


def test_every_combination_of_a_query_can_be_looked_up(path, routes):
    sql = "SELECT origin, dest, hour FROM routes, range(24) AS hours(hour) WHERE dest IS NOT NULL;"
    written = write(path, query(sql, [routes]), score)
    assert (written.rows, written.key) == (48, ("origin", "dest", "hour"))
    assert written.size_bytes == path.stat().st_size
    assert lookup(path, {"hour": 23, "origin": "LGA", "dest": "ORD"}) == {
        "origin": "LGA",
        "dest": "ORD",
        "hour": 23,
        "prediction": "yes",
        "probability_no": 0.25,
        "probability_yes": 0.75,
        "model_version": 3,
        "run_id": "r",
        "predicted_at": "2026-01-02T03:04:05.000000+00:00",
    }
    assert lookup(path, {"hour": 24, "origin": "LGA", "dest": "ORD"}) is None
    assert lookup(path, {"hour": None, "origin": "LGA", "dest": "ORD"}) is None


def test_a_key_may_be_a_part_of_what_the_model_takes(path):
    write(path, query("SELECT * FROM (VALUES (7, 30.5), (8, 41.0)) AS c(customer, age)"), score, ["customer"])
    with ServingTable(path) as table:
        assert table.key == ("customer",)
        found = table.lookup({"customer": 8})
    assert found is not None
    assert found["age"] == 41.0


def test_keys_of_every_type_are_found_by_the_value_that_was_listed(path):
    sql = """SELECT 0.1::DOUBLE AS share, 1.5::DECIMAL(5, 1) AS price, true AS is_new, DATE '2026-01-02' AS day,
        TIMESTAMP '2026-01-02 03:04:05.7' AS at, 'ab'::BLOB AS raw, 'naïve ''x''' AS "a ""b"" c"
    """
    write(path, query(sql), score)
    key = {
        "share": 0.1,
        "price": 1.5,
        "is_new": True,
        "day": date(2026, 1, 2),
        "at": datetime(2026, 1, 2, 4, 4, 5, 700_000, tzinfo=timezone(timedelta(hours=1))),
        'a "b" c': "naïve 'x'",
        "raw": b"ab",
    }
    found = lookup(path, key)
    assert found is not None
    assert (found["day"], found["at"]) == (1_767_312_000, 1_767_323_045)


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_the_most_requested_inputs_come_first_and_equals_in_their_order(tmp_path, path, format_):
    once = list("zyxwvutsrqponmlkjihgfedca")
    log = pa.table({"origin": ["b", *once, "b", None, None, None], "hour": [1, *range(25), 1, 4, 4, 4]})
    file = tmp_path / f"requests.{format_}"
    if format_ == "parquet":
        pq.write_table(log, file)
    else:
        file.write_text(
            "origin,hour\n" + "".join(f"{r['origin'] or ''},{r['hour']}\n" for r in log.to_pylist())
        )
    requests = Table("requests", (file,))
    chunks = list(most_requested(requests, ["origin", "hour"], 3))
    assert [row for chunk in chunks for row in chunk.to_pylist()] == [
        {"origin": "b", "hour": 1},
        {"origin": "a", "hour": 24},
        {"origin": "c", "hour": 23},
    ]
    assert write(path, chunks, score).rows == 3
    with pytest.raises(DataError, match="there is no column 'horigin'"):
        list(most_requested(requests, ["horigin"], 2))


def test_a_key_that_comes_twice_is_named(path):
    sql = "SELECT * FROM (VALUES ('z', 9), ('a', 1), ('a', 1), ('c', 3), ('d', 4), ('e', 5)) v(origin, hour)"
    with pytest.raises(PredictionError, match=r"the key origin='a', hour=1 comes twice.*SELECT DISTINCT"):
        write(path, query(sql), score)


def test_null_in_a_key_is_named_before_anything_is_scored(path):
    def never(chunk):
        raise AssertionError

    sql = "SELECT * FROM (VALUES ('a', 1.5), ('b', 'nan'::DOUBLE)) AS v(origin, hour)"
    with pytest.raises(PredictionError, match=r"hour is NULL in the key origin='b', hour=None.*COALESCE"):
        write(path, query(sql), never)


def test_a_key_without_a_prediction_is_named(path):
    def forgetful(chunk):
        yield from score(chunk.slice(0, 3))

    with pytest.raises(PredictionError, match=r"the key n=3 got no prediction"):
        write(path, query("SELECT range AS n FROM range(5)"), forgetful)


def test_a_table_that_fails_leaves_what_was_there_and_nothing_beside_it(path):
    write(path, query("SELECT 1 AS n"), score)
    before = path.read_bytes()

    def broken(chunk):
        yield from score(chunk)
        raise PredictionError("the model is gone")

    with pytest.raises(PredictionError, match="the model is gone"):
        write(path, query("SELECT range AS n FROM range(50000)"), broken)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_new_table_replaces_the_old_and_an_open_one_stays_as_it_was(path):
    write(path, query("SELECT 1 AS n"), score)
    with ServingTable(path) as old:
        write(path, query("SELECT 2 AS n"), score)
        assert old.lookup({"n": 1}) is not None
    assert lookup(path, {"n": 1}) is None
    assert lookup(path, {"n": 2}) is not None


def test_what_cannot_be_is_said(path, tmp_path):
    with pytest.raises(PredictionError, match="no rows to predict for"):
        write(path, query("SELECT 1 AS n WHERE false"), score)
    with pytest.raises(PredictionError, match="no column 'm' to be the key; there are n"):
        write(path, query("SELECT 1 AS n"), score, ["m"])
    with pytest.raises(PredictionError, match=r"column 'n' is list<.*>, which cannot be a key"):
        write(path, query("SELECT [1, 2] AS n"), score)
    with pytest.raises(PredictionError, match="the predictions do not carry n of the key"):
        write(
            path, query("SELECT 1 AS n"), lambda _: iter([pa.RecordBatch.from_pydict({"prediction": [1.0]})])
        )
    with pytest.raises(PredictionError, match="nowhere/t: the serving table cannot be written"):
        write(tmp_path / "nowhere" / "t", query("SELECT 1 AS n"), score)
    with pytest.raises(DataError, match=r"combinations\.sql:1: there is no table 'routs'"):
        write(path, query("SELECT * FROM routs"), score)


def test_a_lookup_says_what_it_needs(path):
    with pytest.raises(PredictionError, match="no serving table can be read here"):
        lookup(path, {"n": 1})
    path.write_bytes(b"not a database, but long enough to look like one might")
    with pytest.raises(PredictionError, match="no serving table can be read here"):
        lookup(path, {"n": 1})
    write(path, query("SELECT 1 AS n, 2 AS m"), score)
    with pytest.raises(PredictionError, match="looked up by m, x, but its key is n, m"):
        lookup(path, {"x": 1, "m": 2})


def test_a_pushed_model_answers_for_every_combination(path, pushed):
    key = ("humidity", "gusts")
    scored = scored_by(pushed, Direct(pushed.load()), key, "combinations.sql", AT)
    sql = """SELECT humidity, gusts
        FROM range(0, 100, 5) AS h(humidity), range(60) AS g(gusts)"""
    written = write(path, query(sql), scored, key)
    assert written.rows == 1200
    row = lookup(path, {"humidity": 35, "gusts": 7})
    assert row is not None
    assert row["probability_wet_day"] == pytest.approx(chance(35, 7), abs=1e-6)
    assert (row["run_id"], row["model_version"]) == ("run-1", 1)


def test_a_combination_that_the_model_cannot_take_is_named_with_the_reason(path, pushed):
    scored = scored_by(pushed, Direct(pushed.load()), (), "combinations.sql", AT)
    sql = "SELECT 'd' || n AS day, if(n < 20000, 1.0, NULL) AS humidity FROM range(20001) AS r(n)"
    with pytest.raises(
        PredictionError, match=r"combinations\.sql: row 20001 cannot be scored: misses humidity.*\"d20000\""
    ):
        write(path, query(sql), scored, ["day"])
