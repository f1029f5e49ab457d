"""`headworks report`: which run, which file; what is on the page is another test's matter."""

import pkgutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from pipeline.runners import fork_server, node_process
from pipeline.runners.node_process import Answer
from pipeline.runners.records import RunRecord, RunState, save

RUNS = ("20260101T000000-ab12", "20260102T000000-cd34")


class InThisProcess:
    """Does what a child would, without loading TFX, which a run without an evaluation does not need."""

    def __init__(self, log_path: Path, name: str) -> None:
        self.log_path = log_path

    def run(self, function: str, *arguments: object) -> Answer:
        return Answer(pkgutil.resolve_name(function)(*arguments), 0)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(node_process, "NodeProcess", InThisProcess)
    monkeypatch.setattr(fork_server, "start", lambda: None)
    for run_id in RUNS:
        record = RunRecord(run_id, "shop", "2026-01-01T00:00:00+00:00", RunState.INTERRUPTED)
        save(record, tmp_path / "runs" / run_id)
    return tmp_path.resolve()


def report(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_the_latest_run_has_its_report_beside_its_record(root):
    result = report("--root", root)
    assert result.exit_code == 0, result.output
    path = Path(result.output.strip())
    assert path == root / "runs" / RUNS[1] / "report.html"
    assert RUNS[1] in path.read_text()


def test_another_run_goes_where_it_is_wanted(root):
    result = report("20260101", "--root", root, "--output", root / "page.html")
    assert result.output.strip() == str(root / "page.html")
    assert RUNS[0] in (root / "page.html").read_text()
    assert not (root / "runs" / RUNS[0] / "report.html").exists()


def test_a_run_that_is_not_there_is_named(root):
    result = report("2031", "--root", root)
    assert result.exit_code == 1
    assert "2031: no such run" in result.stderr


def test_a_folder_that_is_not_there_is_named_before_anything_is_loaded(root):
    result = report("--root", root, "--output", root / "nowhere" / "page.html")
    assert result.exit_code == 2
    assert str(root / "nowhere") in result.stderr


@pytest.mark.timeout(600)
def test_the_report_of_a_real_run_is_whole(first_run, tmp_path):
    wanted = tmp_path / "page.html"
    result = report(first_run.record.run_id, "--root", first_run.taxi.root, "--output", wanted)
    assert result.exit_code == 0, result.output
    page = wanted.read_text()
    for title in ("Gates", "What ran", "Data", "Training", "Metrics", "Lineage"):
        assert f">{title}</h2>" in page
    assert "Could not read" not in page
    assert "is gone" not in page
