"""`headworks compare`: which runs, which files, and what is said where there is nothing to compare."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import cloud.experiments
from cli.main import main
from pipeline.runners.records import RunRecord, RunState, save

RUNS = ("20260101T000000-ab12", "20260102T000000-cd34")


@pytest.fixture
def root(tmp_path) -> Path:
    for run_id in RUNS:
        record = RunRecord(run_id, "shop", "2026-01-01T00:00:00+00:00", RunState.INTERRUPTED)
        save(record, tmp_path / "runs" / run_id)
    return tmp_path.resolve()


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def test_two_runs_stand_side_by_side_and_the_page_lies_in_the_output_folder(root):
    result = compare("20260101", "latest", "--root", root)
    assert result.exit_code == 0, result.output
    assert f"note: {RUNS[0]} has no training to compare: interrupted." in result.output
    assert f"curves: {root / 'compare.html'}" in result.output
    assert "TensorBoard" not in result.output
    assert all(run_id in (root / "compare.html").read_text() for run_id in RUNS)


def test_runs_named_by_their_folders_need_no_configuration(root):
    result = compare(*(root / "runs" / run_id for run_id in RUNS), "--html", root / "page.html")
    assert result.exit_code == 0, result.output
    assert (root / "page.html").exists()
    assert not (root / "compare.html").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["latest"], "name two runs or more"),
        (["latest", "20260101", "--tensorboard", "x"], "--tensorboard goes with --to-vertex"),
        (["latest", "20260101", "--html", "/nowhere/page.html"], "there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_done_is_a_usage_error(root, arguments, told):
    result = compare(*arguments, "--root", root)
    assert result.exit_code == 2
    assert told in result.stderr


def test_unknown_and_repeated_runs_are_one_line(root):
    result = compare("latest", "2031", "--root", root)
    assert result.exit_code == 1
    assert "error: 2031: no such run" in result.stderr
    result = compare("latest", RUNS[1], "--root", root)
    assert result.exit_code == 1
    assert f"are the same run, {RUNS[1]}" in result.stderr


def test_one_run_may_go_to_vertex_and_a_malformed_destination_is_told(root, monkeypatch):
    sent = []

    def log(*given):
        sent.append(given)
        return ["done"]

    monkeypatch.setattr(cloud.experiments, "log", log)
    result = compare("latest", "--root", root, "--to-vertex", "p/europe-west1/late", "--tensorboard", "tb")
    assert result.exit_code == 0, result.output
    assert result.output.endswith("done\n")
    (runs, to), *_ = sent
    assert [run.run_id for run in runs] == [RUNS[1]]
    assert (str(to), to.tensorboard) == ("p/europe-west1/late", "tb")
    result = compare("latest", "--root", root, "--to-vertex", "late")
    assert result.exit_code == 1
    assert "error: late: write it as PROJECT/LOCATION/EXPERIMENT" in result.stderr
