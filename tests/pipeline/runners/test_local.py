import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.runners import local, records
from pipeline.runners.events import NodeResult, NodeState, Progress, SilentObserver
from pipeline.runners.local import NodePolicy, PipelineBuildError, RunSpec
from pipeline.runners.records import RunRecord, RunState
from pipeline.runners.root_folder import PipelineBusyError, RootFolder, RootFolderError, exclusive

REPOSITORY = Path(__file__).resolve().parents[3]
TINY = "tests.pipeline.runners.tiny_pipelines"


@pytest.fixture
def spec(tmp_path: Path, notes: Path) -> RunSpec:
    return RunSpec(
        root=tmp_path / "root",
        name="diamond",
        factory=f"{TINY}:diamond",
        factory_kwargs={"notes": str(notes)},
        first_pause_seconds=0.01,
    )


def states(record: RunRecord) -> dict[str, str]:
    return {node_id: result.state.value for node_id, result in record.nodes.items()}


def ran(notes: Path) -> list[str]:
    """Return the names of the components that executed since the last call, sorted."""
    path = notes / "ran"
    names = sorted(path.read_text().split()) if path.exists() else []
    path.unlink(missing_ok=True)
    return names


def wait_for(path: Path) -> str:
    while not (path.exists() and path.read_text()):
        time.sleep(0.02)
    return path.read_text()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_a_second_run_reuses_every_output_under_its_own_key(spec: RunSpec, notes: Path) -> None:
    first = local.run(spec)
    assert states(first) == dict.fromkeys(("Source", "Left", "Right", "Judge"), "succeeded")
    assert ran(notes) == ["Judge", "Left", "Right", "Source"]

    for _ in range(2):
        again = local.run(spec)
        assert states(again) == dict.fromkeys(("Source", "Left", "Right", "Judge"), "cached")
        assert ran(notes) == []
        assert {n: r.outputs for n, r in again.nodes.items()} == {
            n: r.outputs for n, r in first.nodes.items()
        }
    assert Path(first.nodes["Source"].uris("schema")[0], "schema").exists()


def test_the_parent_never_loads_tensorflow_or_tfx(spec: RunSpec) -> None:
    code = (
        "import sys, pipeline.runners.local; sys.exit(any(m in sys.modules for m in ('tfx', 'tensorflow')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_a_failure_names_component_and_cause_while_siblings_finish(spec: RunSpec, notes: Path) -> None:
    (notes / "Left.fail").touch()
    record = local.run(spec)

    assert record.state is RunState.FAILED
    assert states(record) == {
        "Source": "succeeded",
        "Right": "succeeded",
        "Left": "failed",
        "Judge": "skipped",
    }
    [failed] = record.failed_nodes
    assert failed.node_id == "Left"
    assert failed.error == "ValueError: Left met a row it cannot read (cause: KeyError: 'dep_delay')"
    assert record.nodes["Judge"].error == "not run: Left failed"
    log = RootFolder(spec.root).log_path(record.run_id, "Left").read_text()
    assert re.search(r"Traceback[^$]*dep_delay", log)
    assert records.load_run(spec.root) == record

    (notes / "Left.fail").unlink()
    ran(notes)
    assert local.run(spec).state is RunState.SUCCEEDED
    assert ran(notes) == ["Judge", "Left"]


def test_what_components_print_is_kept_in_their_log(spec: RunSpec) -> None:
    record = local.run(spec)
    assert "a word on standard output" in RootFolder(spec.root).log_path(record.run_id, "Source").read_text()


def test_a_flaky_node_is_tried_again(spec: RunSpec, notes: Path) -> None:
    (notes / "Left.fail_once").touch()
    record = local.run(replace(spec, policies={"Left": NodePolicy(retries=2)}))
    assert record.state is RunState.SUCCEEDED
    assert record.nodes["Left"].attempts == 2
    assert record.nodes["Left"].error is None
    assert ran(notes) == ["Judge", "Left", "Left", "Right", "Source"]


def test_a_refusal_is_not_tried_again(spec: RunSpec, notes: Path) -> None:
    (notes / "Left.refuse_once").touch()
    record = local.run(replace(spec, policies={"Left": NodePolicy(retries=2)}))
    assert record.nodes["Left"].state is NodeState.FAILED
    assert record.nodes["Left"].attempts == 1
    assert record.nodes["Left"].error == "RefusedError: too few rows"


def test_a_node_over_its_time_limit_is_killed_and_leaves_nothing(spec: RunSpec, notes: Path) -> None:
    (notes / "Source.hang").touch()
    record = local.run(replace(spec, policies={"Source": NodePolicy(retries=1, timeout_seconds=2)}))

    assert record.nodes["Source"].state is NodeState.TIMED_OUT
    assert record.nodes["Source"].attempts == 2
    assert "limit of 2 s" in (record.nodes["Source"].error or "")
    assert record.nodes["Judge"].state is NodeState.SKIPPED
    assert not is_running(int((notes / "Source.pid").read_text()))
    assert list(spec.root.glob("artifacts/Source/examples/*")) == []

    (notes / "Source.hang").unlink()
    assert local.run(spec).state is RunState.SUCCEEDED


def test_a_killed_child_fails_its_node_and_a_rerun_uses_no_half_artifact(spec: RunSpec, notes: Path) -> None:
    (notes / "Source.hang").touch()
    killer = threading.Thread(target=lambda: os.kill(int(wait_for(notes / "Source.pid")), signal.SIGKILL))
    killer.start()
    record = local.run(spec)
    killer.join()

    assert "killed by SIGKILL" in (record.nodes["Source"].error or "")
    assert list(spec.root.glob("artifacts/*/*/*/half")) == []
    (notes / "Source.hang").unlink()
    assert local.run(spec).state is RunState.SUCCEEDED


def test_after_a_killed_run_nobody_lives_on_and_a_rerun_finishes(spec: RunSpec, notes: Path) -> None:
    (notes / "Left.hang").touch()
    script = Path(__file__).with_name("kill_me.py")
    parent = subprocess.Popen(
        [sys.executable, script, spec.root, notes], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    child = int(wait_for(notes / "Left.pid"))
    with pytest.raises(PipelineBusyError, match=f"{spec.root}.*process {parent.pid}"):
        local.run(spec)
    parent.kill()
    parent.wait()

    assert soon(lambda: not is_running(child))
    assert records.load_run(spec.root).state is RunState.RUNNING
    [half] = spec.root.glob("artifacts/Left/model/*")
    (notes / "Left.hang").unlink()
    ran(notes)
    record = local.run(spec)

    assert record.state is RunState.SUCCEEDED
    assert record.nodes["Source"].state is NodeState.CACHED
    assert "Left" in ran(notes)
    assert not half.exists()
    assert [r.state for r in records.load_runs(spec.root)] == [RunState.INTERRUPTED, RunState.SUCCEEDED]


def test_an_interrupted_run_kills_its_children_and_says_so(spec: RunSpec, notes: Path) -> None:
    class Interrupting(SilentObserver):
        def node_finished(self, result: NodeResult) -> None:
            if result.node_id == "Right":
                wait_for(notes / "Left.pid")
                raise KeyboardInterrupt

    (notes / "Left.hang").touch()
    with pytest.raises(KeyboardInterrupt):
        local.run(spec, Interrupting())
    assert not is_running(int((notes / "Left.pid").read_text()))
    assert records.load_run(spec.root).state is RunState.INTERRUPTED

    (notes / "Left.hang").unlink()
    assert local.run(spec).state is RunState.SUCCEEDED


@pytest.mark.parametrize("damage", ["folder gone", "file gone"])
def test_a_damaged_artifact_is_not_reused(spec: RunSpec, notes: Path, damage: str) -> None:
    model = Path(local.run(spec).nodes["Left"].uris("model")[0])
    ran(notes)
    (model / "model").unlink()
    if damage == "folder gone":
        model.rmdir()

    record = local.run(spec)
    assert record.nodes["Left"].state is NodeState.SUCCEEDED
    assert ran(notes) == ["Judge", "Left"]
    assert states(local.run(spec)) == dict.fromkeys(("Source", "Left", "Right", "Judge"), "cached")


def test_a_run_from_a_node_repeats_it_and_all_after_it(spec: RunSpec, notes: Path) -> None:
    local.run(spec)
    ran(notes)
    for changed in (replace(spec, start_from="Left"), replace(spec, no_cache=frozenset({"Left"}))):
        assert local.run(changed).state is RunState.SUCCEEDED
        assert ran(notes) == ["Judge", "Left"]
    local.run(replace(spec, no_cache=None))
    assert ran(notes) == ["Judge", "Left", "Right", "Source"]


def test_a_changed_parameter_runs_its_node_again(spec: RunSpec, notes: Path) -> None:
    local.run(spec)
    ran(notes)
    local.run(replace(spec, factory_kwargs={"notes": str(notes), "text": "other rows"}))
    assert ran(notes) == ["Judge", "Left", "Right", "Source"]


@pytest.mark.parametrize("change", [{"start_from": "Lift"}, {"no_cache": frozenset({"Lift"})}])
def test_an_unknown_node_is_refused_with_the_names_that_exist(
    spec: RunSpec, change: dict[str, object]
) -> None:
    expected = r"Lift \(did you mean Left\?\); the pipeline has: Judge, Left, Right, Source"
    with pytest.raises(PipelineBuildError, match=expected):
        local.run(replace(spec, **change))  # type: ignore[arg-type]


def test_a_policy_for_an_unknown_node_is_refused(spec: RunSpec) -> None:
    with pytest.raises(PipelineBuildError, match="retry policy for Lift"):
        local.run(replace(spec, policies={"Lift": NodePolicy()}))


def test_a_pipeline_that_cannot_be_built_says_why(spec: RunSpec) -> None:
    with pytest.raises(PipelineBuildError, match="RuntimeError: the schema has no label"):
        local.run(replace(spec, factory=f"{TINY}:broken", factory_kwargs={}))
    with pytest.raises(PipelineBuildError, match="returned str; it has to return a TFX Pipeline"):
        local.run(replace(spec, factory=f"{TINY}:not_a_pipeline", factory_kwargs={}))
    assert {r.state for r in records.load_runs(spec.root)} == {RunState.FAILED}


def test_a_resolver_finds_nothing_at_first_and_the_blessed_model_later(spec: RunSpec) -> None:
    spec = replace(spec, factory=f"{TINY}:with_champion")
    first = local.run(spec)
    assert first.state is RunState.SUCCEEDED
    assert first.nodes["Champion"].outputs == ()

    second = local.run(spec)
    assert second.nodes["Champion"].uris("model") == first.nodes["Left"].uris("model")


def test_a_node_whose_inputs_cannot_be_resolved_fails_the_run(spec: RunSpec) -> None:
    record = local.run(replace(spec, factory=f"{TINY}:starved"))
    assert record.state is RunState.FAILED
    assert [node.node_id for node in record.failed_nodes] == ["Judge"]
    assert "model" in (record.nodes["Judge"].error or "")


def test_tensorflow_and_beam_work_in_forked_children(spec: RunSpec) -> None:
    record = local.run(replace(spec, factory=f"{TINY}:heavy", factory_kwargs={}))
    assert states(record) == {"Trains": "succeeded", "Beams": "succeeded"}


class _Diary(SilentObserver):
    def __init__(self) -> None:
        self.progress: list[tuple[str, Progress]] = []
        self.finished: list[NodeResult] = []

    def node_progressed(self, node_id: str, progress: Progress) -> None:
        self.progress.append((node_id, progress))

    def node_finished(self, result: NodeResult) -> None:
        self.finished.append(result)


def test_progress_of_components_reaches_the_observer(spec: RunSpec) -> None:
    diary = _Diary()
    record = local.run(spec, diary)
    assert diary.progress[0] == ("Source", Progress(0, 100, "rows"))
    assert diary.progress[-1] == ("Source", Progress(100, 100, "rows"))
    assert diary.finished == list(record.nodes.values())
    assert all(result.peak_rss_bytes for result in diary.finished)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    root = RootFolder(tmp_path / "root")
    busy = pytest.raises(PipelineBusyError, match=f"{root.path}.*process {os.getpid()}")
    with exclusive(root), busy, exclusive(root):
        pass
    with exclusive(root):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    root = RootFolder(tmp_path / "file" / "root")
    with pytest.raises(RootFolderError, match=f"{root.path}: cannot write here"), exclusive(root):
        pass
