from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.errors import DataError
from ingest.locations import Table
from ingest.query import Column, bind, check_columns, describe, normalized
from ingest.tables import Database, connect
from schemas.features import DType


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    flights, planes = tmp_path / "flights.csv", tmp_path / "planes.csv"
    flights.write_text("carrier,arr_delay,tail\nAA,11,N1\nUA,-3,N2\n")
    planes.write_text("tail,seats\nN1,100\n")
    with connect([Table("flights", (flights,)), Table("planes", (planes,))]) as opened:
        yield opened


def refusal(database: Database, sql: str, **params: int) -> str:
    with pytest.raises(DataError) as error:
        describe(database, sql, params, "q.sql")
    return str(error.value)


def one(database: Database, expression: str) -> Column:
    return describe(database, f"SELECT {expression} AS x", {}, "q.sql")[0]


@pytest.mark.parametrize(
    ("expression", "dtype", "value"),
    [
        ("7::UTINYINT", DType.INT, 7),
        ("true", DType.INT, 1),
        ("1.25::DECIMAL(4, 2)", DType.FLOAT, 1.25),
        ("'nan'::DOUBLE", DType.FLOAT, None),
        ("'-inf'::FLOAT", DType.FLOAT, float("-inf")),
        ("'é'", DType.BYTES, "é"),
        ("'a'::ENUM ('a', 'b')", DType.BYTES, "a"),
        ("'\\xFF'::BLOB", DType.BYTES, b"\xff"),
        ("DATE '2013-01-02'", DType.INT, 1_357_084_800),
        ("TIMESTAMP '1969-12-31 23:59:59.5'", DType.INT, -1),
        ("TIMESTAMPTZ '2013-01-02 01:00:00+01'", DType.INT, 1_357_084_800),
        ("[1, NULL, 3]", DType.INT, [1, 3]),
        ("[1.5, 'nan'::DOUBLE]", DType.FLOAT, [1.5]),
        ("['a', NULL]::VARCHAR[2]", DType.BYTES, ["a"]),
        ("NULL::INTEGER[]", DType.INT, None),
    ],
)
def test_each_type_has_its_feature_and_value(
    database: Database, expression: str, dtype: DType, value: object
) -> None:
    column = one(database, expression)
    found = database.connection.execute(
        f"SELECT {column.expression()} FROM (SELECT {expression} AS x)"
    ).fetchall()

    assert column.dtype is dtype
    assert found == [(value,)]


@pytest.mark.parametrize("expression", ["{'a': 1}", "INTERVAL 1 DAY", "[[1]]", "TIME '01:00'"])
def test_a_type_that_no_feature_can_hold_is_refused(database: Database, expression: str) -> None:
    assert "column 'x' has type" in refusal(database, f"SELECT {expression} AS x")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "SELECT carrier,\n  arr_dely\nFROM flights",
            "q.sql:2: there is no column 'arr_dely'; did you mean 'arr_delay'?",
        ),
        ("SELECT *\nFROM flihgts", "q.sql:2: there is no table 'flihgts'; did you mean 'flights'?"),
        ("SELECT -- arr_dly\n f.arr_dly FROM flights f", "q.sql:2: there is no column 'arr_dly'"),
        ("SELECT p.seats FROM flights f", "there is no table 'p'"),
        ("SELECT carrier,\nFROM FROM flights", "q.sql:2: syntax error"),
        ("SELECT f.tail, p.tail FROM flights f, planes p", "gives two columns named 'tail'; rename one"),
        ("SELECT tail FROM flights, planes", "Ambiguous reference"),
        ("SELECT NULL AS x", "column 'x' is NULL in every row"),
        ("SELECT 1; SELECT 2", "want one SELECT statement, found SELECT, SELECT"),
        ("COPY flights TO 'x.csv'", "want one SELECT statement, found COPY"),
        ("SELECT 1 AS x\nWHERE 1 < $first_span", "q.sql:2: no value for the parameter $first_span"),
    ],
)
def test_wrong_sql_is_refused_by_file_and_line(database: Database, sql: str, said: str) -> None:
    assert said in refusal(database, sql)


def test_parameters_are_bound_outside_strings_and_comments() -> None:
    sql = "SELECT '$n', $n -- $n é\n, $nn"

    assert bind(sql, {"n": 1, "nn": 22}, "q.sql") == "SELECT '$n', 1 -- $n é\n, 22"


def test_layout_and_comments_do_not_change_normalized_sql() -> None:
    assert normalized("SELECT  'a  --b' AS é -- why\n, 1/* x */;\n") == normalized("SELECT 'a  --b' AS é , 1")
    assert normalized("SELECT 'a b'") != normalized("SELECT 'a  b'")


def test_columns_are_held_against_the_schema(database: Database) -> None:
    sql = "SELECT carrier, arr_delay FROM flights"
    columns = describe(database, sql, {}, "q.sql")

    def said(**expected: DType) -> str:
        with pytest.raises(DataError) as error:
            check_columns(database, columns, expected, "q.sql")
        return str(error.value)

    check_columns(database, columns, {"carrier": DType.BYTES, "arr_delay": DType.INT}, "q.sql")
    assert "gives no column 'arr_dela', which the schema has; did you mean 'arr_delay'?" in said(
        carrier=DType.BYTES, arr_dela=DType.INT
    )
    assert "gives a column 'arr_delay', which the schema lacks" in said(carrier=DType.BYTES)
    retyped = said(carrier=DType.INT, arr_delay=DType.INT)
    assert "column 'carrier' is VARCHAR" in retyped
    assert "flights.csv:2: column 'carrier': 'AA' is not a BIGINT" in retyped


def test_whole_numbers_are_widened_to_float_where_asked_but_times_are_not(database: Database) -> None:
    sql = "SELECT 1 AS size, 2 AS count, DATE '2024-01-01' AS day"
    found = {column.name: column for column in describe(database, sql, {}, "q.sql", ("size", "day"))}
    assert {name: column.dtype for name, column in found.items()} == {
        "size": DType.FLOAT,
        "count": DType.INT,
        "day": DType.INT,
    }
    assert "AS FLOAT" in found["size"].expression()


@pytest.mark.parametrize("end", ["", ";", " ;\n", "; -- done", ";\n/* done; really */\n", ";;  "])
def test_whatever_ends_a_statement_is_cut_off(end: str) -> None:
    assert bind(f"SELECT ';' AS x{end}", {}, "q.sql").strip() == "SELECT ';' AS x"
