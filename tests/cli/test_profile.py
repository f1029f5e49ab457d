"""`headworks profile`: which run, and how its figures are told; what they mean is another test's matter."""

import json
import pkgutil

import pytest
from click.testing import CliRunner, Result

from cli import profile as command
from cli.main import main
from pipeline import finished_run
from pipeline.runners import fork_server, node_process
from pipeline.runners.node_process import Answer
from pipeline.runners.records import RunRecord, RunState, save

RUN = "20260101T000000-ab12"
FOUND = {
    "bound": "input",
    "reasons": ["A step takes long."],
    "changes": ["Raise train.memory_rows."],
    "measured": {
        "batch_size": 500,
        "step_seconds": 0.010,
        "compute_seconds": 0.002,
        "input_seconds": 0.009,
        "one_row_seconds": 0.001,
        "doubled_seconds": 0.004,
    },
}


class InThisProcess:
    """Does what a child would."""

    def __init__(self, log_path, name):
        pass

    def run(self, function, *arguments):
        return Answer(pkgutil.resolve_name(function)(*arguments), 0)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(node_process, "NodeProcess", InThisProcess)
    monkeypatch.setattr(fork_server, "start", lambda: None)
    monkeypatch.setattr(finished_run, "find", lambda folder, record: None)
    monkeypatch.setattr(command, "measured", lambda root, run_id, steps: {**FOUND, "asked": [run_id, steps]})
    save(RunRecord(RUN, "shop", "2026-01-01T00:00:00+00:00", RunState.SUCCEEDED), tmp_path / "runs" / RUN)
    return tmp_path.resolve()


def profile(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["profile", *map(str, arguments)])


def test_the_verdict_stands_in_words_under_the_times(root):
    result = profile("--root", root)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[1].split()[-3:] == ["500", "10.00", "50,000"]
    assert lines[-4:] == [
        "bound by input",
        "  A step takes long.",
        "what to change",
        "  Raise train.memory_rows.",
    ]


def test_json_has_everything_and_the_run(root):
    result = profile("2026", "--root", root, "--steps", 7, "--json")
    assert json.loads(result.output) == {"run": RUN, **FOUND, "asked": [RUN, 7]}


def test_a_run_that_is_not_there_is_named(root):
    result = profile("2031", "--root", root)
    assert result.exit_code == 1
    assert "2031: no such run" in result.stderr


@pytest.mark.timeout(600)
def test_a_real_training_is_profiled(first_run):
    result = profile(first_run.record.run_id, "--root", first_run.taxi.root, "--steps", 16, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["bound"] in ("input", "compute", "memory")
    assert found["measured"]["compute_seconds"] > 0
    assert found["measured"]["parameters"] > 0
