import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest import splits
from ingest.errors import DataError
from ingest.locations import Table
from ingest.query import describe
from ingest.splits import ColumnSplit, HashSplit, Split, TimeBoundaries, TimeFractions
from ingest.tables import Database, connect

SQL = "SELECT * FROM t"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "t.csv"
    days = "".join(
        f"2013-01-{day:02},{day},key{day},{part},{part[:3]}\n" for day, part in enumerate(PARTS, 1)
    )
    path.write_text("day,n,key,part,wrong\n" + days)
    with connect([Table("t", (path,))]) as opened:
        yield opened


PARTS = ["train"] * 6 + ["validation"] * 2 + ["test"] * 2


def assigned(database: Database, split: Split, sql: str = SQL) -> list[str]:
    columns = describe(database, sql, {}, "q.sql")
    resolved = splits.resolve(database, sql, columns, split)
    rows = database.connection.execute(
        f"SELECT {splits.expression(resolved, columns)} FROM ({sql})"
    ).fetchall()
    counts = splits.check(database, sql, columns, resolved)
    assert counts == Counter(name for (name,) in rows)
    return [name for (name,) in rows]


def refusal(database: Database, split: Split, sql: str = SQL) -> str:
    with pytest.raises(DataError) as error:
        assigned(database, split, sql)
    return str(error.value)


@pytest.mark.parametrize(
    "split",
    [
        TimeBoundaries("day", "2013-01-07", "2013-01-09"),
        TimeBoundaries("day", "2013-01-07T00:00:00Z", "2013-01-09"),
        TimeBoundaries("n", "7", "9"),
        TimeFractions("day", validation=0.2, test=0.2),
        TimeFractions("n", validation=0.2, test=0.2),
        ColumnSplit("part"),
    ],
    ids=repr,
)
def test_time_and_column_splits_give_each_row_its_place(database: Database, split: Split) -> None:
    assert assigned(database, split) == PARTS


def test_a_boundary_with_a_zone_is_an_instant(database: Database) -> None:
    sql = "SELECT n, day::TIMESTAMPTZ + INTERVAL 30 MINUTE AS at FROM t"

    # 01:00 at +01:00 is midnight in UTC, half an hour before the row of that day.
    split = TimeBoundaries("at", "2013-01-07 01:00:00+01:00", "2013-01-09 01:00:00+01:00")
    assert assigned(database, split, sql) == PARTS


def test_rows_of_one_moment_stay_together_in_the_later_split(database: Database) -> None:
    sql = "SELECT least(n, 8) AS n FROM t"

    assert assigned(database, TimeFractions("n", validation=0.2, test=0.2), sql) == (
        ["train"] * 6 + ["validation"] + ["test"] * 3
    )


def test_the_hash_split_is_the_documented_function_of_the_key(database: Database) -> None:
    sql = "SELECT 'k' || range AS a, CASE WHEN range % 3 > 0 THEN range END AS b FROM range(200)"

    def expected(i: int) -> str:
        key = f"k{i}\x1f{i if i % 3 else chr(0)}"
        position = int(hashlib.md5(key.encode()).hexdigest()[:8], 16) / 16**8
        return "test" if position < 0.1 else "validation" if position < 0.3 else "train"

    split = HashSplit(("a", "b"), validation=0.2, test=0.1)
    assert assigned(database, split, sql) == [expected(i) for i in range(200)]


def test_the_hash_split_of_known_keys_never_changes(database: Database) -> None:
    split = HashSplit(("key",), validation=0.3, test=0.3)

    assert assigned(database, split) == [
        "train",
        "validation",
        "test",
        "train",
        "test",
        "validation",
        "train",
        "validation",
        "test",
        "train",
    ]


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (
            TimeBoundaries("day", "2013-01-07", "2014-01-01"),
            "test is empty: validation starts at 2013-01-07 and test at 2014-01-01, but day goes "
            "from 2013-01-01 to 2013-01-10",
        ),
        (TimeBoundaries("day", "2013-01-09", "2013-01-07"), "2013-01-09 is later than test_from 2013-01-07"),
        (TimeBoundaries("day", "January", "2013-01-07"), "the boundary 'January' is not an ISO 8601 date"),
        (TimeBoundaries("n", "2013-01-01", "2013-01-07"), "'2013-01-01' is not a number"),
        (TimeBoundaries("key", "1", "2"), "column 'key' is VARCHAR; a time split needs"),
        (TimeBoundaries("dey", "1", "2"), "the query gives no column 'dey'"),
        (TimeFractions("day", validation=0.001, test=0.001), "less than one row"),
        (HashSplit(("part",), validation=0.001, test=0.001), "the key part has too few values"),
        (ColumnSplit("wrong"), "names no split in 10 rows ('tes', 'tra', 'val')"),
    ],
)
def test_a_split_that_cannot_be_is_refused(database: Database, split: Split, said: str) -> None:
    assert said in refusal(database, split)


def test_rows_without_a_time_are_counted(database: Database) -> None:
    sql = "SELECT nullif(nullif(n, 3), 4) AS n FROM t"

    assert "column 'n' is NULL in 2 rows" in refusal(database, TimeBoundaries("n", "7", "9"), sql)


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.2), (0.5, 0.5), (0.2, -0.1)])
def test_fractions_leave_something_for_each_split(validation: float, test: float) -> None:
    with pytest.raises(DataError, match="above 0 and their sum below 1"):
        HashSplit(("key",), validation, test)


def test_the_column_that_names_the_split_is_not_written(database: Database) -> None:
    columns = describe(database, SQL, {}, "q.sql")

    assert "part" not in [column.name for column in splits.written(columns, ColumnSplit("part"))]
    assert splits.written(columns, HashSplit(("part",), 0.1, 0.1)) == columns
