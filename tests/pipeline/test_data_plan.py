from pathlib import Path

import pytest

from ingest.errors import DataError
from ingest.examples import write_examples
from ingest.locations import Spans
from pipeline.config import ConfigError, load
from pipeline.data_plan import plan


def spanned(folder: Path, span: str, location: str = '"span-{SPAN}/*.csv"', sql: str = ""):
    for number in (2, 3, 10):
        path = folder / f"span-{number}" / "rows.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("id,sold\n1,1\n")
    (folder / "rows.sql").write_text("SELECT * FROM rows WHERE week BETWEEN $first_span AND $last_span")
    file = folder / "pipeline.yaml"
    file.write_text(
        "name: shop\ndata:\n"
        f"  source: {{kind: query, tables: {{rows: {location}}}{sql}}}\n"
        f"  split: {{by: hash, columns: [id]}}\n{span}label: {{column: sold}}\n"
    )
    return plan(load(file))


@pytest.mark.parametrize(
    ("span", "expected", "files"),
    [
        ("{last: latest}", Spans(2, 10), ["span-2", "span-3", "span-10"]),
        ("{last: latest, window: 1}", Spans(10, 10), ["span-10"]),
        ("{last: 3, window: 2}", Spans(2, 3), ["span-2", "span-3"]),
        ("{last: latest, window: 2}", Spans(3, 10), ["span-3", "span-10"]),
        ("{last: 3, window: 99}", Spans(2, 3), ["span-2", "span-3"]),
    ],
)
def test_a_window_takes_the_spans_up_to_the_last(tmp_path, span, expected, files):
    made = spanned(tmp_path, f"  span: {span}\n")
    assert made.spans == expected
    assert [path.parent.name for path in made.tables[0].paths] == files


def test_a_window_is_bound_into_the_sql_where_the_files_have_no_span(tmp_path):
    (tmp_path / "all.csv").write_text("id,sold,week\n1,1,1\n")
    made = spanned(tmp_path, "  span: {last: 12, window: 4}\n", "all.csv", ", sql: rows.sql")
    assert made.params == {"first_span": 9, "last_span": 12}


@pytest.mark.parametrize(
    ("span", "location", "message"),
    [
        ("", '"span-{SPAN}/*.csv"', "data.span: missing"),
        ("  span: {last: latest}\n", "span-2/rows.csv", "no file shows a span"),
        (
            "  span: {last: 4, window: 1}\n",
            '"span-{SPAN}/*.csv"',
            "4: no file of that span; there are 2, 3, 10",
        ),
    ],
)
def test_a_span_that_cannot_be_read_is_refused(tmp_path, span, location, message):
    with pytest.raises((ConfigError, DataError), match=message):
        spanned(tmp_path, span, location)


def test_a_missing_query_names_the_nearest_file_and_the_line(tmp_path):
    with pytest.raises(ConfigError) as caught:
        spanned(tmp_path, "  span: {last: 3}\n", sql=", sql: row.sql")
    assert f"did you mean {tmp_path / 'rows.sql'}? ({tmp_path / 'pipeline.yaml'}:3)" in str(caught.value)


def test_a_missing_table_names_the_line(tmp_path):
    with pytest.raises(DataError, match=r"no file at .*gone.csv.*pipeline.yaml:3"):
        spanned(tmp_path, "", "gone.csv")


def test_a_span_that_nothing_reads_is_refused(tmp_path):
    (tmp_path / "all.csv").write_text("id,sold,week\n1,1,1\n")
    with pytest.raises(
        ConfigError, match=r"neither a table's location has \{SPAN\} nor .* so all spans would be read"
    ):
        spanned(tmp_path, "  span: {last: 12, window: 4}\n", "all.csv")


def test_a_split_that_the_configuration_does_not_name_is_refused_though_it_looks_like_ours(tmp_path):
    (tmp_path / "rows.csv").write_text("id,part,sold\n1,learn,1\n2,train,0\n3,check,1\n4,final,0\n")
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        "name: shop\ndata:\n  source: {kind: query, tables: {rows: rows.csv}}\n"
        "  split: {by: column, column: part, train: learn, validation: check, test: final}\n"
        "label: {column: sold}\n"
    )
    with pytest.raises(DataError, match="not named: train"):
        write_examples(plan(load(file)), tmp_path / "examples")
