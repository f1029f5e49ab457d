import gzip
import io
import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from beam_jobs.formats import text
from beam_jobs.formats.text import ReadSettings
from beam_jobs.outputs import SourceRead
from beam_jobs.readers import DEAD_LETTERS, FILES, InputFile, ReadFiles, find_files, read_file
from beam_jobs.rows import Batch, PredictionError
from ingest.records import to_examples, to_frames

ROWS = 5000


def contents() -> dict[str, bytes]:
    table = pa.table({"a": range(ROWS), "b": [f"text {number}" for number in range(ROWS)]})
    parquet = io.BytesIO()
    pq.write_table(table, parquet)
    records = to_examples(table.to_batches()[0])
    return {
        "csv": b"a,b\n" + b"".join(b"%d,text %d\n" % (n, n) for n in range(ROWS)),
        "jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in table.to_pylist()),
        "parquet": parquet.getvalue(),
        "tfrecord": bytes(to_frames(records)),
    }


CONTENTS = contents()


def rows(path: Path | str, **settings: Any) -> int:
    (file,) = find_files([str(path)])
    return sum(
        len(item) if isinstance(item, Batch) else 1 for item in read_file(file, ReadSettings(**settings))
    )


@pytest.mark.parametrize(
    "name", ["f.csv", "f.jsonl", "f.ndjson", "f.json", "f.parquet", "f.tfrecord", "F.CSV"]
)
def test_the_suffix_says_the_format(tmp_path, name):
    suffix = name.lower().partition(".")[2]
    content = CONTENTS[{"ndjson": "jsonl", "json": "jsonl"}.get(suffix, suffix)]
    (tmp_path / name).write_bytes(content)

    assert rows(tmp_path / name) == ROWS
    if suffix != "parquet":
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        assert rows(tmp_path / f"{name}.gz") == ROWS


@pytest.mark.parametrize("name", ["f.csv.gz", "f.jsonl.gz", "f.tfrecord.gz", "f.tfrecord", "f.parquet"])
def test_a_file_that_is_cut_off_is_an_error_that_names_it_and_the_rows_before(tmp_path, name, monkeypatch):
    monkeypatch.setattr(text, "_BLOCK_BYTES", 1024)
    content = CONTENTS[name.split(".")[1]]
    whole = gzip.compress(content) if name.endswith(".gz") else content
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])

    with pytest.raises(PredictionError) as raised:
        rows(tmp_path / name, rows=100)

    assert str(tmp_path / name) in str(raised.value)
    if name != "f.parquet":
        read = int(str(raised.value).partition(" rows were read")[0].split()[-1])
        assert 100 <= read < ROWS


def test_a_file_that_vanished_is_an_error_that_names_it(tmp_path):
    with pytest.raises(PredictionError, match=r"gone\.csv: gone, damaged or cut off \(No such file"):
        list(read_file(InputFile(str(tmp_path / "gone.csv"), "csv", 0), ReadSettings()))


def test_files_are_found_by_path_folder_and_glob_each_once_and_in_order(tmp_path, monkeypatch):
    for name in ("b.csv", "a.csv", "c[1].jsonl", "notes.txt", ".hidden.csv", "_SUCCESS.csv"):
        (tmp_path / name).write_bytes(b"x\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    monkeypatch.chdir(tmp_path)

    def found(*patterns: str) -> list[str]:
        return [Path(file.path).name for file in find_files(patterns)]

    assert found(str(tmp_path / "b.csv"), "a.csv", "./a.csv", str(tmp_path / "?.csv")) == ["a.csv", "b.csv"]
    assert found(str(tmp_path / "c[1].jsonl")) == ["c[1].jsonl"]
    assert sorted(found(str(tmp_path))) == ["a.csv", "b.csv", "c[1].jsonl"]
    assert sorted(found(f"{tmp_path}/")) == ["a.csv", "b.csv", "c[1].jsonl"]


def test_a_pattern_that_finds_nothing_or_no_known_format_is_an_error_that_names_it(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"x")

    with pytest.raises(PredictionError, match=r"none\*\.csv: no file is there"):
        find_files([str(tmp_path / "none*.csv")])
    with pytest.raises(PredictionError, match=r"notes\.txt: the suffix does not say what it holds"):
        find_files([str(tmp_path / "notes.txt")])
    with pytest.raises(PredictionError, match="format 'xml' is unknown; want one of csv, jsonl, parquet"):
        find_files([str(tmp_path / "notes.txt")], "xml")
    assert find_files([str(tmp_path / "notes.txt")], "csv")[0].format == "csv"


def test_beam_gives_batches_dead_letters_and_the_rows_of_each_file(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x\n1\n2,3\n4\n")
    (tmp_path / "b.jsonl").write_bytes(b'{"x": 5}\nno\n')
    files = find_files([str(tmp_path / "*")])

    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        read = pipeline | ReadFiles(files, ReadSettings())
        values = read.batches | beam.FlatMap(
            lambda batch: [(str(p), str(v)) for p, v in zip(batch.positions, batch.columns["x"], strict=True)]
        )
        assert_that(values, equal_to([("1", "b'1'"), ("3", "b'4'"), ("1", "5")]), label="values")
        assert_that(
            read[DEAD_LETTERS] | beam.Map(lambda letter: (letter.position, letter.raw)),
            equal_to([("2", b"2,3"), ("2", b"no")]),
            label="dead letters",
        )
        expected = [
            SourceRead(file.path, rows, file.size_bytes) for file, rows in zip(files, (3, 2), strict=True)
        ]
        assert_that(read[FILES], equal_to(expected), label="files")
