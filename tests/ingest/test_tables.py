import gzip
import zipfile
from pathlib import Path

import duckdb
import pytest

from ingest.errors import DataError
from ingest.locations import Table
from ingest.tables import Database, connect

MANY = "".join(f"{i},word{i}\n" for i in range(25_000))


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows(*paths: Path, null_values: tuple[str, ...] = ()) -> list[tuple[object, ...]]:
    with connect([Table("t", paths)], null_values) as database:
        return database.connection.execute("SELECT * FROM t").fetchall()


def types(*paths: Path, null_values: tuple[str, ...] = ()) -> dict[str, str]:
    with connect([Table("t", paths)], null_values) as database:
        return {column.name: column.type for column in database.tables[0].columns}


def refusal(*paths: Path) -> str:
    with pytest.raises(DataError) as error, connect([Table("t", paths)]):
        pass
    return str(error.value)


def test_plain_gzip_zip_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    text = "a,b\n1,x\n2,\n"
    plain = write(tmp_path / "t.csv", text)
    packed = write(tmp_path / "t.csv.gz", gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("t.csv", text)
    duckdb.execute(
        f"COPY (SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL) TO '{tmp_path}/t.parquet' (FORMAT parquet)"
    )

    expected = [(1, "x"), (2, None)]
    for path in (plain, packed, tmp_path / "t.zip", tmp_path / "t.parquet"):
        assert rows(path) == expected


def test_members_of_a_zip_are_one_table_in_the_order_of_their_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("b.csv", "a\n3\n")
        archive.writestr("a.csv", "a\n1\n2\n")
        archive.writestr("readme.txt", "not a table")
        archive.writestr("../escape.csv", "a\n0\n")

    assert rows(tmp_path / "t.zip") == [(0,), (1,), (2,), (3,)]
    assert not (tmp_path.parent / "escape.csv").exists()


def test_null_values_are_missing_and_the_empty_text_always_is(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\nNA,x\n2,\n")

    assert rows(path, null_values=("NA",)) == [(None, "x"), (2, None)]


def test_columns_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    one, other = write(tmp_path / "1.csv", "a,b\n1,x\n"), write(tmp_path / "2.csv", "b,a\ny,2\n")

    assert rows(one, other) == [(1, "x"), (2, "y")]


def test_a_type_holds_for_all_rows_not_only_for_the_first_ones(tmp_path: Path) -> None:
    late_fraction = write(tmp_path / "1.csv", "a,b\n" + MANY + "2.5,x\n")
    late_number = write(tmp_path / "2.csv", "a,b\n" + "NA,x\n" * 21_000 + "7,x\n")

    assert types(late_fraction)["a"] == "DOUBLE"
    assert types(late_number, null_values=("NA",))["a"] == "BIGINT"


def test_a_file_without_a_value_takes_the_type_of_the_others(tmp_path: Path) -> None:
    none, whole = write(tmp_path / "1.csv", "a,b\nNA,1\n"), write(tmp_path / "2.csv", "a,b\n3,1\n")
    fraction = write(tmp_path / "3.csv", "a,b\n3.5,1\n")

    assert types(none, whole, fraction, null_values=("NA",)) == {"a": "DOUBLE", "b": "BIGINT"}


def test_a_quote_behind_the_sample_is_still_a_quote(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\n" + MANY + '1,"x, y"\n')

    assert rows(path)[-1] == (1, "x, y")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", "t.csv: the file is empty", id="empty file"),
        pytest.param("a,b\n", "has a header but no rows", id="header only"),
        pytest.param('a,b\n1,"x\n2,y\n', "t.csv:2: broken quoting in '1,\"x'", id="open quote"),
        pytest.param(
            "a,b\n" + MANY + '1,"x\n', "t.csv:25002: broken quoting in '1,\"x'", id="open quote, late"
        ),
        pytest.param('a,b\n1,"x" y\n', "t.csv:2: broken quoting", id="text after a quote"),
        pytest.param(
            "a,b\n1,x\n2\n", "t.csv:3: the header names 2 columns but this row has 1", id="short row"
        ),
        pytest.param("a,b\n1,x\n2,y,z\n", "this row has more than 2 values: '2,y,z'", id="long row"),
        pytest.param("a,b\n1,café\n".encode("latin1"), "t.csv:2: the text is not UTF-8", id="latin-1"),
        pytest.param(
            "a,né\n1,x\n".encode("latin1"), "t.csv:1: the text is not UTF-8", id="latin-1 in the header"
        ),
        pytest.param(
            b"a,b\n" + MANY.encode() + "1,café\n".encode("latin1"), "t.csv:25002: the text is not", id="late"
        ),
        pytest.param("a,b\n1,x\n".encode("utf-16"), "t.csv:1: the text is not UTF-8", id="utf-16"),
        pytest.param("a,b\n1,x\n".encode("utf-16-le"), "iconv -f utf-16 -t utf-8", id="utf-16, unmarked"),
        pytest.param("a,A\n1,2\n", "the header names column 'A' twice", id="repeated column"),
        pytest.param("a,,c\n1,2,3\n", "column 2 of the header has no name", id="nameless column"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert said in refusal(write(tmp_path / "t.csv", content))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    text = ("a,b\n" + MANY).encode()
    packed = gzip.compress(text)
    flipped = bytearray(gzip.compress(text, 0))
    flipped[flipped.rindex(b"word")] ^= 1  # Still a row, but no longer the one that the checksum covers.
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("t.csv", text)

    for path in (
        write(tmp_path / "cut.csv.gz", packed[:-3000]),
        write(tmp_path / "flipped.csv.gz", bytes(flipped)),
        write(tmp_path / "not.csv.gz", text),
        write(tmp_path / "cut.zip", (tmp_path / "whole.zip").read_bytes()[:-3000]),
    ):
        assert refusal(path).startswith(f"{path}: damaged or cut off")
    assert "cannot be read as Parquet" in refusal(write(tmp_path / "t.parquet", b"PAR1 and no more"))


@pytest.mark.parametrize(
    ("second", "said"),
    [
        pytest.param("a\n1\n", "2.csv: table 't': column 'b' is missing", id="missing"),
        pytest.param("a,b,c\n1,x,y\n", "1.csv: table 't': column 'c' is missing, but", id="extra"),
        pytest.param("a,bee\n1,x\n", "2.csv: table 't': column 'b' is missing", id="renamed"),
        pytest.param(
            "a,b\n1,x\nten,y\n", "2.csv:3: column 'a': 'ten' is not a BIGINT", id="retyped, with the value"
        ),
    ],
)
def test_files_of_a_table_that_disagree_are_refused(tmp_path: Path, second: str, said: str) -> None:
    first = write(tmp_path / "1.csv", "a,b\n1,x\n")

    assert said in refusal(first, write(tmp_path / "2.csv", second))


def test_sql_reaches_only_the_declared_files(tmp_path: Path) -> None:
    declared, other = write(tmp_path / "1.csv", "a\n1\n"), write(tmp_path / "2.csv", "a\n2\n")

    with connect([Table("t", (declared,))]) as database:
        assert values(database, "SELECT a FROM t") == [1]
        with pytest.raises(duckdb.PermissionException):
            database.connection.execute(f"SELECT * FROM read_csv('{other}')")


def test_a_query_larger_than_memory_spills(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\n1,x\n")

    with connect([Table("t", (path,))], memory_limit_mb=64, threads=1) as database:
        query = "SELECT md5(range::VARCHAR) AS h FROM range(2_000_000) ORDER BY h"
        assert values(database, f"SELECT count(*) FROM (SELECT *, row_number() OVER () FROM ({query}))") == [
            2_000_000
        ]


def values(database: Database, query: str) -> list[object]:
    return [row[0] for row in database.connection.execute(query).fetchall()]


LARGE = "".join(f"{i},2013-01-01,{'x' * 100}\n" for i in range(30_000))
"""More than the first rows by which a large file is converted while its types are looked for."""


@pytest.mark.parametrize(
    ("last", "want"),
    [
        ("2.5,2013-01-02,y", ("DOUBLE", "DATE")),
        ("7,2013-01-02 06:30:00,y", ("BIGINT", "TIMESTAMP")),
        ("seven,never,y", ("VARCHAR", "VARCHAR")),
        ("7,2013-01-02,y", ("BIGINT", "DATE")),
    ],
)
def test_the_last_row_of_a_large_file_counts_for_its_types(
    tmp_path: Path, last: str, want: tuple[str, str]
) -> None:
    path = write(tmp_path / "t.csv", f"a,b,c\n{LARGE}{last}\n")

    with connect([Table("t", (path,))]) as database:
        kept = database.connection.execute("SELECT a, b FROM t WHERE c = 'y'").fetchall()[0]

    assert tuple(types(path).values())[:2] == want
    assert ",".join(map(str, kept)) == last.removesuffix(",y")


def test_a_broken_row_far_down_a_large_file_is_named_by_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", f"a,b,c\n{LARGE}1,2\n")

    assert f"{path}:30002" in refusal(path)
