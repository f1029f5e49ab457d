import resource
import time
from pathlib import Path

import pytest

from pipeline.git import git_revision
from pipeline.runners import records
from pipeline.runners.events import NodeResult, NodeState, Output
from pipeline.runners.records import RunRecord, RunRecordError, RunState


def record(run_id: str) -> RunRecord:
    return RunRecord(
        run_id, pipeline_name="flights", started_at="2026-01-01T12:00:00+00:00", config_hash="c0ffee"
    )


def save(root: Path, run: RunRecord) -> None:
    records.save(run, root / "runs" / run.run_id)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    output = Output("model", 7, "Model", "/srv/artifacts/Trainer/model/3", file_count=2, size_bytes=99)
    good = NodeResult("Trainer", NodeState.SUCCEEDED, 1.5, 1, outputs=(output,), peak_rss_bytes=1 << 30)
    bad = NodeResult("Pusher", NodeState.FAILED, 0.1, 3, error="OSError: disk full")
    run = record("20260101T120000-ab12").with_node(good).with_node(bad).ended(RunState.FAILED)
    save(tmp_path, run)
    assert records.load_run(tmp_path) == run
    assert run.failed_nodes == (bad,)
    assert [p.name for p in (tmp_path / "runs" / run.run_id).iterdir()] == ["run.json"]


def test_runs_are_found_by_prefix_and_the_latest_by_name(tmp_path: Path) -> None:
    ids = ["20260101T120000-ab12", "20260102T120000-cd34", "20260102T130000-ef56"]
    for run_id in reversed(ids):
        save(tmp_path, record(run_id))
    assert [run.run_id for run in records.load_runs(tmp_path)] == ids
    assert records.load_run(tmp_path, "latest").run_id == ids[-1]
    assert records.load_run(tmp_path, "20260101").run_id == ids[0]
    with pytest.raises(RunRecordError, match=r"20260102: matches several runs.*cd34, .*ef56"):
        records.load_run(tmp_path, "20260102")
    with pytest.raises(RunRecordError, match=r"2025: no such run.*ab12"):
        records.load_run(tmp_path, "2025")


def test_no_runs_yet_is_said_plainly(tmp_path: Path) -> None:
    assert records.load_runs(tmp_path) == []
    with pytest.raises(RunRecordError, match="no runs here yet"):
        records.load_run(tmp_path)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    save(tmp_path, record("20260101T120000-ab12"))
    path = tmp_path / "runs" / "20260101T120000-ab12" / "run.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(RunRecordError, match=str(path)):
        records.load_runs(tmp_path)


def test_a_record_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    run = record("20260101T120000-ab12")
    save(tmp_path, run)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(RunRecordError, match=rf"{run.run_id}: the run's record cannot be written"):
            save(tmp_path, run.ended(RunState.SUCCEEDED))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert records.load_run(tmp_path) == run
    assert [p.name for p in (tmp_path / "runs" / run.run_id).iterdir()] == ["run.json"]


def test_run_ids_sort_by_time() -> None:
    earlier = records.new_run_id()
    time.sleep(1.01)
    assert earlier < records.new_run_id()


def test_the_revision_of_a_folder_outside_git_is_none(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
