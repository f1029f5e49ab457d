import csv
import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_jobs.formats import csv_files, text
from beam_jobs.formats.csv_files import read_csv
from beam_jobs.formats.text import ReadSettings
from beam_jobs.rows import Batch, DeadLetter, PredictionError

PIECES = [b'"', b'""', b'"x"', b'"x\n', b'y"', b",", b"\n", b"\r\n", b"\r", b" ", b"a", b'5" b', b"\0"]
PIECES += [b",", b"\n", b"1", b"\xff", b"\xef\xbb\xbf", b"'", b"\\", b";", b"NA"]
GARBAGE = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)


def read(data: bytes, **options: Any) -> tuple[dict[int, tuple[Any, ...]], dict[int, DeadLetter]]:
    """Rows and dead letters by number; each number may come once."""
    rows: dict[int, tuple[Any, ...]] = {}
    dead: dict[int, DeadLetter] = {}
    item: Any
    for item in read_csv(io.BytesIO(data), "f.csv", ReadSettings(**options)):
        if isinstance(item, DeadLetter):
            assert int(item.position) not in rows.keys() | dead.keys()
            dead[int(item.position)] = item
            continue
        assert all(column.type == pa.binary() for column in item.columns.values())
        for index, position in enumerate(item.positions):
            assert int(position) not in rows.keys() | dead.keys()
            values = tuple(column[index].as_py() for column in item.columns.values())
            rows[int(position)] = (*values, item.raw_row(index))
    assert sorted(rows.keys() | dead.keys()) == list(range(1, len(rows) + len(dead) + 1))
    return rows, dead


def values(data: bytes, **options: Any) -> list[tuple[Any, ...]]:
    rows, dead = read(data, **options)
    assert not dead
    return [row[:-1] for _, row in sorted(rows.items())]


def physical(texts: list[bytes]) -> list[bytes]:
    lines = [line.rstrip(b"\r") for piece in texts for line in piece.split(b"\n")]
    return [line for line in lines if line]


@settings(max_examples=300, deadline=None)
@given(GARBAGE, st.sampled_from([b"a", b"a,b"]), st.sampled_from([3, 1 << 18]))
@example(b'"x\n1,2\n3,y"', b"a,b", 3)
def test_every_line_of_garbage_is_in_one_row_or_one_dead_letter(body, header, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_BLOCK_BYTES", block)
        rows, dead = read(header + b"\n" + body)

    found = {number: row[-1] for number, row in rows.items()} | {n: letter.raw for n, letter in dead.items()}
    assert physical([found[number] for number in sorted(found)]) == physical([body])


@settings(max_examples=300, deadline=None)
@given(GARBAGE)
def test_many_rows_at_once_are_read_as_one_by_one_and_as_pythons_csv_reads_them(body):
    rows, dead = read(b"a,b\n" + body)

    assert (rows, dead) == read(b"a,b\n" + body, rows=1)
    for *found, raw in rows.values():
        (expected,) = csv.reader(io.StringIO(raw.decode("latin1"), newline=""))
        assert found == [value.encode("latin1") or None for value in expected]


@settings(max_examples=200, deadline=None)
@given(GARBAGE.map(lambda body: body.replace(b"\r", b"")), st.integers(1, 12), st.integers(1, 9))
def test_a_bound_on_the_length_of_rows_loses_none(body, longest, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_BLOCK_BYTES", block)
        rows, dead = read(b"a\n" + body, max_row_bytes=longest)

    assert all(len(row[-1]) <= longest for row in rows.values())
    found = {number: row[-1] for number, row in rows.items()} | {n: letter.raw for n, letter in dead.items()}
    assert physical([found[number] for number in sorted(found)]) == [
        line[:longest] for line in physical([body])
    ]


def test_values_may_hold_delimiters_quotes_line_ends_and_bytes_that_are_no_utf_8():
    data = b'\xef\xbb\xbfa,b\r\n"x, ""y""","1\r\n2"\r\n\xff,5" pipe\r\n'

    assert values(data) == [(b'x, "y"', b"1\r\n2"), (b"\xff", b'5" pipe')]


def test_null_values_are_the_callers():
    assert values(b"a,b\n,NA\n") == [(None, b"NA")]
    assert values(b"a,b\n,NA\n", null_values=("NA",)) == [(b"", None)]


def test_a_line_without_a_character_is_no_row_and_has_no_number():
    assert values(b"\n\na\n\n1\r\n\r\n2\n\n") == [(b"1",), (b"2",)]
    assert values(b'a\n""\n') == [(None,)]


def test_the_delimiter_is_the_headers_or_the_callers():
    assert values(b"a;b\n1,5;2\n") == [(b"1,5", b"2")]
    assert values(b"a\tb\n1\t2\n", delimiter="\t") == [(b"1", b"2")]


def test_only_the_columns_that_are_asked_for_are_read_and_rows_of_a_wrong_width_still_found():
    rows, dead = read(b"a,b,c\n1,2,3\n4,5\n", columns=("c", "missing", "a"))

    assert rows == {1: (b"3", b"1", b"1,2,3")}
    assert dead[2].reason == "the row has 2 values where the header names 3 columns"


def test_a_quote_that_is_never_closed_costs_its_own_row_only():
    lines = [b"%d,ok" % number for number in range(1, 301)]
    lines[10] = b'11,"open'
    lines[200] = b'201,"open'

    rows, dead = read(b"a,b\n" + b"\n".join(lines))

    assert sorted(dead) == [11, 201]
    assert "quot" in dead[11].reason
    assert dead[11].raw == b'11,"open'
    assert len(rows) == 298


def test_two_open_quotes_do_not_take_the_rows_between_them():
    lines = [b"%d,ok" % number for number in range(1, 101)]
    lines[10] += b',"'
    lines[90] += b',"'

    rows, dead = read(b"a,b\n" + b"\n".join(lines))

    assert sorted(dead) == [11, 91]
    assert len(rows) == 98


def test_a_quote_after_spaces_is_refused_as_duckdb_and_arrow_read_it_differently():
    rows, dead = read(b'a,b\n1, "x"\n2, x\n')

    assert (list(rows), dead[1].raw) == ([2], b'1, "x"')


def test_a_value_of_several_lines_is_one_row_though_the_last_value_holds_delimiters():
    assert values(b'a,b\n1,"x,y\n,z"\n2,3\n') == [(b"1", b"x,y\n,z"), (b"2", b"3")]


def test_a_field_of_five_megabytes_is_a_dead_letter_and_the_next_row_is_read():
    rows, dead = read(b"a,b\n1," + b"x" * 5_000_000 + b"\n2,y\n")

    assert rows == {2: (b"2", b"y", b"2,y")}
    assert dead[1].reason == "the row is 5000002 bytes long, more than 1048576; the first 4096 are kept here"
    assert dead[1].raw == b"1," + b"x" * 4094
    assert values(b"a,b\n1," + b"x" * 5_000_000, max_row_bytes=1 << 23) == [(b"1", b"x" * 5_000_000)]


def test_a_row_that_arrow_finds_odd_costs_no_other_row(monkeypatch):
    parse = csv_files._Parser._parse

    def refuse(self, rows):
        if any(b"odd" in row.raw for row in rows):
            raise pa.ArrowInvalid("odd")
        return parse(self, rows)

    monkeypatch.setattr(csv_files._Parser, "_parse", refuse)
    rows, dead = read(b"a\n" + b"\n".join([b"1"] * 5 + [b"odd"] + [b"2"] * 6))

    assert [sorted(rows), sorted(dead)] == [[1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12], [6]]
    assert dead[6].reason == "the row cannot be read as CSV: odd"


def test_batches_are_bounded():
    batches = list(read_csv(io.BytesIO(b"a\n" + b"1\n" * 10), "f", ReadSettings(rows=4)))

    assert [list(batch.positions) for batch in batches if isinstance(batch, Batch)] == [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10],
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "f: the file is empty; CSV needs a header"),
        (b"a,b,a\n", "f: the header names column 'a' twice"),
        (b"a,,b\n", "f: column 2 of the header has no name"),
        ("é\n".encode("latin1"), "f: the header is not UTF-8: convert the file"),
        ("a,b\n".encode("utf-16"), "f: the text is not UTF-8: convert the file, for example iconv -f utf-16"),
        (
            "a,b\n".encode("utf-16-le"),
            "f: the text is not UTF-8: convert the file, for example iconv -f utf-16",
        ),
        (b"\x1f\x8b\x08", "f: the file is packed by gzip: let its name end in .gz"),
        (b'a,"b\n1,2\n', "f: the header cannot be read: broken quoting"),
        (b"a\r1\r2\r", "f: the header cannot be read: a carriage return"),
        (b"1,2\n", "f: the header names none of the columns x: is the first line one? It begins with '1'"),
    ],
)
def test_a_header_that_cannot_be_read_is_an_error_that_names_the_file(data, message):
    columns = ("x",) if data == b"1,2\n" else None

    with pytest.raises(PredictionError) as raised:
        list(read_csv(io.BytesIO(data), "f", ReadSettings(columns=columns)))

    assert str(raised.value).startswith(message)


class _Endless(io.RawIOBase):
    """A row that never ends."""

    def __init__(self) -> None:
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        self.taken += size
        return b"a\n" + b"x" * size if self.taken == size else b"x" * size if self.taken < 1 << 26 else b""


def test_memory_does_not_grow_with_a_row():
    import tracemalloc

    tracemalloc.start()
    items: Iterator[Any] = read_csv(_Endless(), "f", ReadSettings())  # type: ignore[arg-type]
    (dead,) = items
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert "bytes long" in dead.reason
    assert peak < 1 << 23
