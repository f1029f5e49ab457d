"""What `headworks rehearse` prints, and how it exits."""

import pytest
from click.testing import CliRunner, Result

from cli.rehearse import rehearse
from pipeline import source_digest
from pipeline.runners.pipeline_spec import SpecError
from tests.pipeline.runners.small_specs import WRITE, pipeline, step, uri, write


def invoke(tmp_path, job, *arguments: str) -> Result:
    return CliRunner().invoke(
        rehearse, [str(write(tmp_path, job)), "--root", str(tmp_path / "root"), *arguments]
    )


def test_a_line_tells_of_each_task_and_the_end_of_the_log_of_a_failure(tmp_path):
    steps = {
        "Bad": step("print('no space left'); raise SystemExit(2)"),
        "After": step(dependentTasks=["Bad"]),
        "Make": step(WRITE, uri("out"), "x", makes={"out": "tfx.Any"}),
    }

    result = invoke(tmp_path, pipeline(steps), "--jobs", "2")

    assert result.exit_code == 1
    told = [line.split()[:2] for line in result.output.splitlines() if line.startswith("  ")][:3]
    assert sorted(told) == [["After", "skipped"], ["Bad", "failed"], ["Make", "succeeded"]]
    assert "failed: Bad: its command ended with exit code 2" in result.output
    assert "no space left" in result.output


def test_a_rehearsal_without_failures_exits_with_zero_and_says_where_its_outputs_are(tmp_path):
    job = pipeline({"Make": step()}, {"span": {"parameterType": "NUMBER_INTEGER"}})

    result = invoke(tmp_path, job, "--parameter", "span=3")

    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "root" / "rehearsal").iterdir()
    assert f"{folder.name}: succeeded" in result.output
    assert f"outputs and logs: {folder}" in result.output


def test_a_job_of_other_code_runs_only_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(source_digest, "code_digest", lambda: "fedcba9876543210")
    job = pipeline({"Make": step()})
    job["labels"] = {"headworks-code": "0123456789abcdef"}

    refused = invoke(tmp_path, job)

    assert isinstance(refused.exception, SpecError)
    assert not (tmp_path / "root").exists()
    assert invoke(tmp_path, job, "--any-code").exit_code == 0


@pytest.mark.parametrize("jobs", ["0", "many"])
def test_jobs_is_a_number_of_tasks(tmp_path, jobs):
    assert invoke(tmp_path, pipeline({}), "--jobs", jobs).exit_code == 2
