"""What a run starts from is kept by content, and found again by what its ExampleGen carries."""

import hashlib
import json
from pathlib import Path

import pytest

from pipeline import data_plan, origins
from pipeline.config import Project, load
from pipeline.origins import DataOrigin, OriginError

_HASH_SPLIT = "{by: hash, columns: [id], validation_fraction: 0.3, test_fraction: 0.3}"


def project(folder: Path, source: str, span: str = "{}") -> Project:
    data = f"{{source: {source}, split: {_HASH_SPLIT}{'' if span == '{}' else f', span: {span}'}}}"
    (folder / "pipeline.yaml").write_text(
        f"name: daily\ndata: {data}\nlabel: {{column: sold}}\noutput: output\n"
    )
    return load(folder / "pipeline.yaml")


def deliver(folder: Path, *spans: int) -> None:
    folder.mkdir(exist_ok=True)
    for span in spans:
        (folder / f"rows-{span}.csv").write_text(f"id,sold\n{span},0\n")


def kept(of: Project) -> DataOrigin:
    origins.write(of)
    return origins.read_data(origins.data_path(of.root, data_plan.fingerprint(of)))


def test_each_file_is_kept_with_digest_and_span_and_gaps_between_spans_are_gaps(tmp_path: Path) -> None:
    deliver(tmp_path, 1, 3, 7)
    found = kept(
        project(tmp_path, "{kind: query, tables: {rows: 'rows-{SPAN}.csv'}}", "{last: latest, window: 2}")
    )
    assert [(file.table, file.span) for file in found.files] == [("rows", 3), ("rows", 7)]
    assert found.files[0].sha256 == hashlib.sha256((tmp_path / "rows-3.csv").read_bytes()).hexdigest()
    assert [span for span in range(9) if found.covers(span)] == [3, 7]


def test_spans_that_the_sql_picks_are_kept_as_a_range(tmp_path: Path) -> None:
    deliver(tmp_path, 1)
    (tmp_path / "rows.sql").write_text("SELECT * FROM rows WHERE id BETWEEN $first_span AND $last_span")
    source = "{kind: query, tables: {rows: rows-1.csv}, sql: rows.sql}"
    found = kept(project(tmp_path, source, "{last: 5, window: 3}"))
    assert [span for span in range(9) if found.covers(span)] == [3, 4, 5]


def test_files_that_were_moved_keep_their_former_place_too(tmp_path: Path) -> None:
    deliver(tmp_path / "here", 1)
    kept(project(tmp_path, "{kind: query, tables: {rows: here}}"))
    (tmp_path / "here").rename(tmp_path / "there")
    for _ in range(2):
        found = kept(project(tmp_path, "{kind: query, tables: {rows: there}}"))
        assert [Path(path).parent.name for path in found.files[0].paths] == ["here", "there"]


def test_the_configuration_is_kept_with_its_defaults_under_its_digest(tmp_path: Path) -> None:
    deliver(tmp_path, 1)
    of = project(tmp_path, "{kind: query, tables: {rows: rows-1.csv}}")
    origins.write(of)
    config = json.loads(origins.config_path(of.root, of.digest()).read_text())
    assert config["train"]["batch_size"] == of.config.train.batch_size


def test_folders_for_stock_example_gens_and_queries_of_bigquery_are_kept(tmp_path: Path) -> None:
    deliver(tmp_path / "rows", 1, 2)
    files = kept(project(tmp_path, "{kind: csv, folder: rows}"))
    assert [(file.table, Path(file.paths[0]).name) for file in files.files] == [
        ("all", "rows-1.csv"),
        ("all", "rows-2.csv"),
    ]
    (tmp_path / "rows.sql").write_text("SELECT $last_span AS day")
    source = "{kind: bigquery, sql: rows.sql, project: a-project, temp_location: gs://bucket/folder}"
    query = kept(project(tmp_path, source, "{last: 4, window: 2}"))
    assert (query.sql, query.first_span, query.last_span) == ("SELECT 4 AS day", 3, 4)
    assert not query.files


_DIGEST = hashlib.sha256(b"data").hexdigest()
_CODE = hashlib.sha256(b"code").hexdigest()


@pytest.mark.parametrize(
    "parameters",
    [
        {"fingerprint": _DIGEST},
        # As TFX stores them of a CsvExampleGen and of a BigQueryExampleGen.
        {
            "custom_config": json.dumps({"custom_config": {"value": f"{_DIGEST} {_CODE}"}}, indent=2),
            "input_config": '{"splits": [{"name": "all", "pattern": "*.csv"}]}',
        },
        {"input_config": '{"splits": [{"name": "single_split", "pattern": "data"}]}'},
    ],
)
def test_the_fingerprint_is_found_in_what_each_example_gen_carries(parameters: dict[str, str]) -> None:
    assert origins.fingerprint_of(parameters) == _DIGEST


def test_an_example_gen_that_is_not_ours_has_none() -> None:
    assert origins.fingerprint_of({}) is None


def test_a_spoilt_record_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.data.json"
    path.write_text('{"files": [{"table": "rows"}]}')
    with pytest.raises(OriginError, match=r"x\.data\.json: cannot be read as a record of data"):
        origins.read_data(path)
