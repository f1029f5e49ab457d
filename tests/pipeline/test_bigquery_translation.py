"""DuckDB's SQL as BigQuery's: what is translated, and what is refused by name and line."""

from pathlib import Path

import pytest

from ingest.errors import DataError
from pipeline.bigquery_translation import output_columns, translate

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights" / "flights.sql"
TABLES = {"rows": "a-project.shop.sales", "weather": "a-project.shop.weather"}


def translated(sql: str, *, at_snapshot: bool = False) -> str:
    return " ".join(translate(sql, "rows.sql", TABLES, at_snapshot=at_snapshot).split())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("a / 100", "`a` / 100"),
        ("a / b", "IEEE_DIVIDE(`a`, `b`)"),
        ("a // b", "DIV(`a`, `b`)"),
        ("(a + 1) % 7", "MOD(`a` + 1, 7)"),
        ("concat_ws('-', a, 1)", "ARRAY_TO_STRING([CAST(`a` AS STRING), CAST(1 AS STRING)], '-')"),
        ("concat(a, b)", "ARRAY_TO_STRING([CAST(`a` AS STRING), CAST(`b` AS STRING)], '')"),
        ("dayname(a)", "FORMAT_DATETIME('%A', CAST(`a` AS DATETIME))"),
        ("epoch(a) / 3600", "( UNIX_MICROS(CAST(`a` AS TIMESTAMP)) / 1000000 ) / 3600"),
        ("make_timestamp(a, 1, 1, 0, 0, 0)", "DATETIME(`a`, 1, 1, 0, 0, 0)"),
        ("date_trunc('week', a)", "DATETIME_TRUNC(CAST(`a` AS DATETIME), ISOWEEK)"),
        ("hour(a)", "EXTRACT(HOUR FROM CAST(`a` AS DATETIME))"),
        ("a::bigint", "CAST(`a` AS INT64)"),
        ("regexp_matches(a, '^x')", "REGEXP_CONTAINS(`a`, '^x')"),
        ("$first_span", "$first_span"),
        ("a / hour(b)", "IEEE_DIVIDE(`a`, EXTRACT(HOUR FROM CAST(`b` AS DATETIME)))"),
        (
            "hour(date_trunc('day', a))",
            "EXTRACT(HOUR FROM CAST(DATETIME_TRUNC(CAST(`a` AS DATETIME), DAY) AS DATETIME))",
        ),
    ],
)
def test_an_expression_says_in_bigquery_what_it_says_in_duckdb(ours: str, theirs: str) -> None:
    assert translated(f"SELECT {ours} AS x FROM rows") == (
        f"SELECT {theirs} AS `x` FROM `a-project`.`shop`.`sales` AS `rows`"
    )


@pytest.mark.parametrize(
    ("window", "theirs"),
    [
        ("ORDER BY a ROWS 3 PRECEDING", "ORDER BY `a` IS NULL, `a`"),
        ("ORDER BY a RANGE BETWEEN 3 PRECEDING AND CURRENT ROW", "ORDER BY `a` RANGE"),
        ("ORDER BY a DESC", "ORDER BY `a` DESC"),
        ("ORDER BY a NULLS FIRST", "ORDER BY `a`)"),
        ("ORDER BY a DESC NULLS FIRST", "ORDER BY `a` IS NULL DESC, `a` DESC"),
    ],
)
def test_nulls_stay_where_duckdb_has_them_in_a_window(window: str, theirs: str) -> None:
    for sql in (
        f"SELECT sum(b) OVER ({window}) FROM rows",
        f"SELECT sum(b) OVER w FROM rows WINDOW w AS ({window})",
    ):
        assert theirs.casefold() in translated(sql).casefold()


def test_tables_are_replaced_at_the_snapshot_time_and_names_of_a_with_are_not() -> None:
    sql = "WITH rows AS (SELECT * FROM Rows WHERE a > 1) SELECT rows.a FROM rows JOIN weather AS w USING (a)"
    assert translated(sql, at_snapshot=True) == (
        "WITH `rows` AS ( SELECT * FROM `a-project`.`shop`.`sales` AS `Rows` "
        "FOR SYSTEM_TIME AS OF TIMESTAMP '$snapshot_time' WHERE `a` > 1 ) "
        "SELECT `rows`.`a` FROM `rows` JOIN `a-project`.`shop`.`weather` AS `w` "
        "FOR SYSTEM_TIME AS OF TIMESTAMP '$snapshot_time' USING (`a`)"
    )


def test_comments_and_layout_change_nothing() -> None:
    assert translate("SELECT a -- why\nFROM rows;", "q", TABLES, at_snapshot=True) == translate(
        "select  a from rows", "q", TABLES, at_snapshot=True
    )


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT\n  a,\n  hash(b)\nFROM rows", r"rows.sql:3: HASH\(b\): the function hash is not translated"),
        ("SELECT median(a) FROM rows", r"MEDIAN\(a\): .* is not translated"),
        ("SELECT greatest(a, b) FROM rows", "GREATEST is not translated"),
        ("SELECT log(a) FROM rows", "LOG is not translated"),
        ("SELECT extract(dow FROM a) FROM rows", "dow is not translated"),
        ("SELECT substr(a, 0, 2) FROM rows", "from a number of 1 or more"),
        ("SELECT a::decimal(9, 2) FROM rows", "CAST to this type is not translated"),
        ("SELECT sum(a) FILTER (b) FROM rows", "FILTER is not translated"),
        (
            "SELECT a FROM rows\nASOF JOIN weather ON rows.t >= weather.t",
            "JOIN with method is not translated",
        ),
        (
            "SELECT a FROM rows UNION ALL BY NAME SELECT a FROM weather",
            "UNION with by name is not translated",
        ),
        ("SELECT a FROM rows USING SAMPLE 10%", "not translated"),
        ("SELECT max(a, 2) FROM rows", "MAX with expressions is not translated"),
        ("SELECT a FROM read_csv('x.csv')", "READ_?CSV is not translated"),
        (
            "SELECT\na\nFROM flights",
            r"rows.sql:3: table 'flights' is not among data.source.tables \(rows, weather\)",
        ),
        ("SELECT a FROM rows WHERE b = $day", r"\$day: no value for this parameter"),
        ("SELECT a, FROM FROM rows", "rows.sql: syntax error"),
        ("SELECT 1; SELECT 2", "want one SELECT statement, found SELECT, SELECT"),
        ("DELETE FROM rows", "want one SELECT statement, found DELETE"),
    ],
)
def test_what_may_mean_something_else_is_refused_with_its_line(sql: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        translated(sql)


def test_the_shipped_query_is_bigquerys_sql_with_the_same_columns() -> None:
    tables = {name: f"a-project.flights.{name}" for name in ("flights", "weather", "planes")}
    sql = FLIGHTS.read_text()
    made = translate(sql, "flights.sql", tables, at_snapshot=True)
    assert made.count("FOR SYSTEM_TIME AS OF TIMESTAMP '$snapshot_time'") == 3
    columns = output_columns(sql, "flights.sql", "duckdb")
    assert columns is not None
    assert output_columns(made.replace("$", ""), "made.sql", "bigquery") == columns
    assert columns[0] == "flight_id"


def test_columns_that_only_a_table_knows_are_not_guessed() -> None:
    assert output_columns("SELECT * EXCLUDE (a), 1 AS b FROM rows", "q", "duckdb") is None
    assert output_columns("SELECT a, b + 1 AS c FROM rows", "q", "duckdb") == ("a", "c")
