import io
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_jobs.formats import json_lines
from beam_jobs.formats.json_lines import read_json_lines
from beam_jobs.formats.text import ReadSettings
from beam_jobs.rows import Batch, DeadLetter, PredictionError

VALUES = st.sampled_from(
    [None, True, 1, -(2**63), 0.5, float("nan"), "x:", "é\n", [], [1, [2]], {"a": {"b": 1}}]
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", ":", "é"]), VALUES, max_size=3)
PIECES = [
    b"{",
    b"}",
    b"[",
    b'"a"',
    b":",
    b",",
    b"1",
    b"NaN",
    b"\n",
    b'{"a": 1}\n',
    b"\r\n",
    b"\xff",
    b'"\\ud800"',
]
LINES = OBJECTS.map(json.dumps).map(str.encode).map(lambda line: line + b"\n")
GARBAGE = st.lists(st.sampled_from(PIECES) | LINES, max_size=30).map(b"".join)


def read(data: bytes, **options: Any) -> dict[int, Any]:
    """By number, each once: the values that a row has or the dead letter, and the row as it came."""
    found: dict[int, Any] = {}
    item: Any
    for item in read_json_lines(io.BytesIO(data), "f.jsonl", ReadSettings(**options)):
        rows: list[tuple[Any, Any, bytes]]
        if isinstance(item, DeadLetter):
            rows = [(item.position, item.reason, item.raw)]
        else:
            rows = [
                (
                    position,
                    {name: column[index] for name, column in item.columns.items()},
                    item.raw_row(index),
                )
                for index, position in enumerate(item.positions)
            ]
        for position, what, raw in rows:
            assert int(position) not in found
            found[int(position)] = (what, raw)
    assert sorted(found) == list(range(1, len(found) + 1))
    return found


def reason(line: bytes) -> str:
    ((what, raw),) = read(line).values()
    assert raw == line[: len(raw)]
    return what if isinstance(what, str) else ""


@settings(max_examples=200, deadline=None)
@given(GARBAGE)
@example(b'{"a": 1, "a": "\\u003a"}')
def test_every_line_of_garbage_is_a_row_or_a_dead_letter_as_python_reads_it(data):
    found = read(data)

    lines = [line for line in (line.strip(b" \t\r") for line in data.split(b"\n")) if line]
    assert [raw for _, raw in (found[number] for number in sorted(found))] == lines
    for what, raw in found.values():
        try:
            expected = json.loads(raw.decode(), object_pairs_hook=json_lines._object)
        except ValueError:
            expected = None
        if isinstance(expected, dict):
            assert repr({name: value for name, value in what.items() if name in expected}) == repr(
                {name: expected[name] for name in what if name in expected}
            )
            assert expected.keys() <= what.keys()
        else:
            assert isinstance(what, str)


@settings(max_examples=100, deadline=None)
@given(GARBAGE)
def test_many_lines_at_once_are_read_as_one_by_one(data):
    def present(rows):
        """Without what only other rows have."""
        return {
            number: (
                what
                if isinstance(what, str)
                else sorted((name, repr(v)) for name, v in what.items() if v is not None),
                raw,
            )
            for number, (what, raw) in sorted(rows.items())
        }

    assert repr(present(read(data))) == repr(present(read(data, rows=1)))


def test_columns_are_all_that_any_row_has_and_none_where_a_row_has_none():
    (batch,) = read_json_lines(io.BytesIO(b'{"a": 1}\n\n{"b": [1, NaN]}\r\n'), "f", ReadSettings())

    assert isinstance(batch, Batch)
    assert repr(dict(batch.columns)) == "{'a': [1, None], 'b': [None, [1, nan]]}"
    assert list(batch.positions) == [1, 2]


def test_only_the_columns_that_are_asked_for_are_kept():
    assert read(b'{"a": 1, "b": 2}', columns=("b", "c")) == {1: ({"b": 2, "c": None}, b'{"a": 1, "b": 2}')}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a": 1', "the text is no JSON: Expecting ',' delimiter at character 8"),
        (b"[1, 2]", "the row is no JSON object: '[1, 2]'"),
        (b'{"a": "\xff"}', "the text is not UTF-8 at byte 8"),
        (b'{"a": 1, "b": 2, "a": 3}', "the JSON names 'a' twice"),
        (b'{"a": 1, "a": "\\u003a"}', "the JSON names 'a' twice"),
        (b'{"x": {"a:": 1, "a:": 2}}', "the JSON names 'a:' twice"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "the JSON is nested more than 64 deep"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "the JSON is nested more than 64 deep"),
        (
            b'{"a": "' + b"x" * 5_000_000 + b'"}',
            "the row is 5000009 bytes long, more than 1048576; the first 4096 are kept here",
        ),
        (b'{"a": [' + b"{}," * 100 + b"{}]}", ""),
        (b'{"a": NaN, "b": -Infinity, "c": 1e999}', ""),
    ],
)
def test_what_is_no_row_says_why(line, expected):
    assert reason(line) == expected


def test_a_number_of_thousands_of_digits_is_a_dead_letter():
    assert "4300 digits" in reason(b'{"a": ' + b"9" * 5000 + b"}")


def test_rows_that_share_no_names_come_in_batches_of_bounded_width(monkeypatch):
    monkeypatch.setattr(json_lines, "_MOST_CELLS", 100)
    data = b"\n".join(json.dumps({f"{row}-{name}": 1 for name in range(9)}).encode() for row in range(40))

    batches = list(read_json_lines(io.BytesIO(data), "f", ReadSettings()))

    assert sum(len(batch) for batch in batches if isinstance(batch, Batch)) == 40
    assert max(len(batch) * len(batch.columns) for batch in batches if isinstance(batch, Batch)) <= 100


def test_text_in_utf_16_is_an_error_that_names_the_file():
    with pytest.raises(
        PredictionError, match="f: the text is not UTF-8: convert the file, for example iconv"
    ):
        list(read_json_lines(io.BytesIO('{"a": 1}'.encode("utf-16")), "f", ReadSettings()))


def test_an_empty_file_has_no_rows():
    assert read(b"") == {}
