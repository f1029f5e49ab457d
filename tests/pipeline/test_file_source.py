from pathlib import Path

import pytest

from ingest.splits import ColumnSplit
from pipeline.config import ConfigError, Project, load
from pipeline.data_plan import fingerprint, preview
from pipeline.file_source import file_input


def project(folder: Path, source: str, split: str = "{by: hash, columns: [id]}", more: str = "") -> Project:
    file = folder / "pipeline.yaml"
    file.write_text(
        f"name: shop\ndata:\n  source: {source}\n  split: {split}\n{more}label: {{column: sold}}\n"
    )
    return load(file)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"id,sold\n{len(name)},1\n")


def test_a_folder_of_one_kind_of_file_is_one_input(tmp_path):
    touch(tmp_path, "rows/b.csv", "rows/a.csv", "rows/.hidden", "rows/README.md")
    found = file_input(project(tmp_path, "{kind: csv, folder: rows}"))
    [split] = found.splits
    assert (found.base, split.pattern, found.span) == (tmp_path / "rows", "*.csv", None)
    assert [file.name for file in split.files] == ["a.csv", "b.csv"]


def test_sub_folders_are_the_splits_of_the_span_that_is_asked_for(tmp_path):
    touch(
        tmp_path,
        *(f"day-{day:02d}/{name}/x.csv" for day in (7, 10) for name in ("train", "validation", "test")),
    )
    for last, day in (("latest", 10), ("7", 7)):
        found = file_input(
            project(
                tmp_path,
                '{kind: csv, folder: "day-{SPAN:2}"}',
                "{by: folder}",
                f"  span: {{last: {last}, window: 1}}\n",
            )
        )
        assert found.span == day
        assert found.base == tmp_path
        assert [(split.name, split.pattern) for split in found.splits] == [
            (name, f"day-{{SPAN:2}}/{name}/*.csv") for name in ("train", "validation", "test")
        ]
        assert {file.parent.parent.name for file in found.files} == {f"day-{day:02d}"}


@pytest.mark.parametrize(
    ("files", "source", "more", "message"),
    [
        ([], "{kind: csv, folder: rows}", "", "rows: no such folder"),
        (["rows/a.txt"], "{kind: csv, folder: rows}", "", "rows: holds no file to read"),
        (
            ["rows/a.gz", "rows/a.tfrecord"],
            "{kind: tfrecord, folder: rows}",
            "",
            "mixes files ending in .gz and .tfrecord",
        ),
        (
            ["rows/a.csv"],
            "{kind: csv, folder: rows}",
            "  span: {last: 1, window: 1}\n",
            "has no {SPAN} in it",
        ),
        (["s-1/a.csv"], '{kind: csv, folder: "s-{SPAN}"}', "", "say which span to read"),
        (
            ["s-1/a.csv", "s-2/a.csv"],
            '{kind: csv, folder: "s-{SPAN}"}',
            "  span: {last: 3, window: 1}\n",
            "data.span.last: 3: no such span; there are 1, 2",
        ),
        (
            ["s-1/a.csv"],
            '{kind: csv, folder: "s-{SPAN}"}',
            "  span: {last: 1, window: 2}\n",
            "reads one span: say window: 1",
        ),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused_with_file_and_line(tmp_path, files, source, more, message):
    touch(tmp_path, *files)
    with pytest.raises(ConfigError) as caught:
        file_input(project(tmp_path, source, more=more))
    assert message in str(caught.value)
    assert f"{tmp_path / 'pipeline.yaml'}:" in str(caught.value)


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        touch(folder, "rows/a.csv")
    source = "{kind: csv, folder: rows}"
    before = fingerprint(project(first, source))
    assert fingerprint(project(second, source)) == before
    (first / "rows/a.csv").write_text("id,sold\n1,0\n")
    assert fingerprint(project(first, source)) != before


def test_rows_of_split_folders_can_be_previewed_with_their_split(tmp_path):
    touch(tmp_path, "rows/train/a.csv", "rows/validation/a.csv", "rows/test/a.csv")
    plan = preview(project(tmp_path, "{kind: csv, folder: rows}", "{by: folder}"))
    assert plan is not None
    assert [table.name for table in plan.tables] == ["train", "validation", "test"]
    assert plan.split == ColumnSplit("_split")
