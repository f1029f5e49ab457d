"""A real pipeline killed at one node after the other, in one folder, until a last run finishes.

Every interruption must leave the folder so that the next run takes the finished nodes from the cache, makes the
killed one again, and uses nothing half-made.
"""

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from pipeline.push import damaged, versions
from pipeline.runners import records
from pipeline.runners.events import NodeState
from pipeline.runners.records import RunRecord, RunState
from tests.shop import Shop, can_mount

_T = TypeVar("_T")
_MOST_SECONDS = 120.0

WRITES_FOR_LONG = ("QueryExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator", "ModelPusher")
"""Killed when their output folders are there; the others are too quick, and killed as soon as they have begun."""

RESOLVERS = {"Champion", "PreviousData"}
"""Questions to ML Metadata, asked in each run."""


@dataclass(frozen=True)
class Kill:
    """What to kill, and at which node: the node's process, or the runner with all of its group."""

    node: str
    runner: bool = False

    def __str__(self) -> str:
        return f"{'runner' if self.runner else 'process'} at {self.node}"


# In the order in which nodes run, so that all of it is one pass over the pipeline.
KILLS = (
    Kill("ImportSchemaGen", runner=True),
    Kill("QueryExampleGen"),
    Kill("StatisticsGen"),
    Kill("ExampleValidator"),
    Kill("PreviousData"),
    Kill("DataGate"),
    Kill("Transform"),
    Kill("Transform", runner=True),
    Kill("Trainer"),
    Kill("Trainer", runner=True),
    Kill("ServingCheck"),
    Kill("Champion"),
    Kill("Evaluator"),
    Kill("ModelGate"),
    Kill("ModelPusher"),
    Kill("ModelPusher", runner=True),
)


@dataclass(frozen=True)
class Interruption:
    """One kill: the run it hit, as its record said right after, and the folders it left or had begun."""

    kill: Kill
    record: RunRecord
    halves: tuple[Path, ...]


@dataclass(frozen=True)
class Story:
    """All that happened in one folder."""

    shop: Shop
    interruptions: tuple[Interruption, ...]
    full_disk: str
    last: RunRecord

    @property
    def runs(self) -> list[RunRecord]:
        return records.load_runs(self.shop.output)


class Watch:
    """Looks for one node of the run that starts next."""

    def __init__(self, output: Path, node: str) -> None:
        self._output = output
        self._node = node
        self._old_logs = self._logs()
        self._old_folders = self._folders()

    def until_begun(self) -> int:
        """Return the node's process; if it is one that writes for long, when it has made its output folders."""
        process = _wait(self._process)
        if self._node in WRITES_FOR_LONG:
            _wait(self.halves)
        return process

    def halves(self) -> tuple[Path, ...]:
        """Return the output folders of the node's execution."""
        return tuple(self._folders() - self._old_folders)

    def _folders(self) -> set[Path]:
        return set(self._output.glob(f"artifacts/{self._node}/[!.]*/*"))

    def _logs(self) -> set[str]:
        return set(map(str, self._output.glob(f"runs/*/logs/{self._node}.log")))

    def _process(self) -> int | None:
        """Return the process that writes the node's log."""
        logs = self._logs() - self._old_logs
        for process in Path("/proc").glob("[0-9]*") if logs else ():
            try:
                if str((process / "fd" / "1").readlink()) in logs:
                    return int(process.name)
            except OSError:
                continue  # It ended meanwhile.
        return None


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    shop = Shop(tmp_path_factory.mktemp("interrupted") / "shop")
    interruptions = tuple(_interrupt(shop, kill) for kill in KILLS)
    full_disk = _run_with_full_disk(shop) if can_mount() else ""
    result = shop.call("run")
    assert result.exit_code == 0, result.output
    return Story(shop, interruptions, full_disk, records.load_run(shop.output))


def _interrupt(shop: Shop, kill: Kill) -> Interruption:
    # A pusher has to wait for whoever else pushes: that holds it in the middle of its work.
    with _pushing(shop.serving) if kill.node == "ModelPusher" else _nobody():
        return _kill_runner(shop, kill) if kill.runner else _kill_process(shop, kill)


def _kill_runner(shop: Shop, kill: Kill) -> Interruption:
    watch = Watch(shop.output, kill.node)
    runner = shop.start()
    child = watch.until_begun()
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    _wait(lambda: not Path(f"/proc/{child}/fd/1").exists())
    return Interruption(kill, records.load_run(shop.output), watch.halves())


def _kill_process(shop: Shop, kill: Kill) -> Interruption:
    watch = Watch(shop.output, kill.node)
    with ThreadPoolExecutor(1) as killer:
        halves = killer.submit(_kill_and_look, watch)
        result = shop.call("run")
    assert result.exit_code == 1, result.output
    assert f"failed: {kill.node}: its process was killed by SIGKILL" in result.output
    return Interruption(kill, records.load_run(shop.output), halves.result())


def _kill_and_look(watch: Watch) -> tuple[Path, ...]:
    os.kill(watch.until_begun(), signal.SIGKILL)
    return watch.halves()


def _run_with_full_disk(shop: Shop) -> str:
    """Push where there is room for 64 KB, a fraction of the model; return what the command said."""
    result = shop.run_with_mount(f"mount -t tmpfs -o size=64k tmpfs {shop.serving}")
    assert result.returncode == 1
    return result.stdout


def _wait(found: Callable[[], _T | None]) -> _T:
    deadline = time.monotonic() + _MOST_SECONDS
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return value


@contextmanager
def _pushing(serving: Path) -> Iterator[None]:
    serving.mkdir(parents=True, exist_ok=True)
    with (serving / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _nobody() -> Iterator[None]:
    yield


pytestmark = pytest.mark.timeout(600)


def test_every_node_was_killed(story: Story) -> None:
    assert {kill.node for kill in KILLS} == set(story.last.nodes)
    assert len(story.interruptions) == len(KILLS)


def test_nodes_that_write_for_long_were_killed_with_a_half_artifact(story: Story) -> None:
    half_made = {one.kill.node for one in story.interruptions if one.halves}
    assert half_made >= set(WRITES_FOR_LONG)


def test_a_run_whose_runner_was_killed_is_told_from_one_whose_node_was(story: Story) -> None:
    assert [one.record.state for one in story.interruptions] == [
        RunState.RUNNING if one.kill.runner else RunState.FAILED for one in story.interruptions
    ]
    closed = {run.run_id: run.state for run in story.runs}
    assert {closed[one.record.run_id] for one in story.interruptions if one.kill.runner} == {
        RunState.INTERRUPTED
    }


def test_what_was_half_made_is_gone_and_in_no_later_run(story: Story) -> None:
    halves = [str(half) for one in story.interruptions for half in one.halves]
    assert [half for half in halves if Path(half).exists()] == []
    used = [output.uri for run in story.runs for node in run.nodes.values() for output in node.outputs]
    assert set(used).isdisjoint(halves)


def test_each_node_finished_once_and_then_came_from_the_cache(story: Story) -> None:
    for node in set(story.last.nodes) - RESOLVERS:
        states = [run.nodes[node].state for run in story.runs if node in run.nodes]
        at = states.index(NodeState.SUCCEEDED)
        assert set(states[:at]) <= {NodeState.FAILED, NodeState.SKIPPED}, node
        assert set(states[at + 1 :]) <= {NodeState.CACHED}, node


@pytest.mark.skipif(not can_mount(), reason="this machine does not let us mount a small disk")
def test_a_disk_that_fills_up_while_pushing_is_named(story: Story) -> None:
    assert f"failed: ModelPusher: PushError: {story.shop.serving}: " in story.full_disk
    assert "the disk is full" in story.full_disk


def test_the_last_run_pushed_one_whole_version(story: Story) -> None:
    assert versions(story.shop.serving) == [1]
    assert damaged(story.shop.serving / "1") == []
    assert [path.name for path in story.shop.serving.glob(".partial*")] == []


@pytest.mark.parametrize("harm", ["a file changed", "a version deleted", "all deleted"])
def test_a_harmed_push_is_made_again_under_a_new_number(story: Story, harm: str) -> None:
    [*_, last] = versions(story.shop.serving)
    if harm == "a file changed":
        (story.shop.serving / str(last) / "saved_model.pb").write_bytes(b"")
    elif harm == "a version deleted":
        shutil.rmtree(story.shop.serving / str(last))
    else:
        shutil.rmtree(story.shop.serving)
    result = story.shop.call("run")
    assert result.exit_code == 0, result.output
    assert f"pushed: {story.shop.serving / str(last + 1)}" in result.output
    assert damaged(story.shop.serving / str(last + 1)) == []
    nodes = records.load_run(story.shop.output).nodes.values()
    ran = {node.node_id for node in nodes if node.state is NodeState.SUCCEEDED}
    assert ran - RESOLVERS == {"ModelPusher"}
