"""Show a run to whoever started it: live lines on a terminal, one plain line a finished node elsewhere."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from pipeline.runners.events import NodePlan, NodeResult, NodeState, Observer, Progress, SilentObserver

_STYLES = {
    NodeState.PENDING: "dim",
    NodeState.RUNNING: "bold",
    NodeState.SUCCEEDED: "green",
    NodeState.CACHED: "cyan",
    NodeState.FAILED: "bold red",
    NodeState.TIMED_OUT: "bold red",
    NodeState.SKIPPED: "dim",
}


@contextmanager
def watching(console: Console) -> Iterator[Observer]:
    """Yield the observer that suits the console, and leave the terminal in order afterwards."""
    if not console.is_terminal:
        yield PlainObserver(console)
        return
    live = LiveObserver(console)
    with live.display:
        yield live


class PlainObserver(SilentObserver):
    """One line a finished node: for files, pipes and build logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def node_finished(self, result: NodeResult) -> None:
        self._console.print(summary_line(result), markup=False, highlight=False, soft_wrap=True)


def summary_line(result: NodeResult) -> str:
    """Return `Trainer  succeeded  12.3 s  812 MB`, with the cause of a failure."""
    parts = [result.node_id, result.state.value.replace("_", " ")]
    if result.attempts:
        parts.append(f"{result.seconds:.1f} s")
    if result.peak_rss_bytes:
        parts.append(f"{result.peak_rss_bytes / 1e6:.0f} MB")
    if result.attempts > 1:
        parts.append(f"{result.attempts} attempts")
    if result.error:
        parts.append(result.error)
    return "  ".join(parts)


class LiveObserver(SilentObserver):
    """One live line a node: state, rows or steps, elapsed, time left."""

    def __init__(self, console: Console) -> None:
        self.display = RichProgress(
            SpinnerColumn(finished_text=" "),
            _NodeColumn(),
            _StateColumn(),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeElapsedColumn(),
            _TimeLeftColumn(),
            console=console,
        )
        self._preparing: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def run_preparing(self, run_id: str) -> None:
        self._preparing = self._add("loading TFX", NodeState.RUNNING, None, start=True)

    def run_started(self, run_id: str, nodes: Sequence[NodePlan]) -> None:
        if self._preparing is not None:
            self.display.remove_task(self._preparing)
        for node in nodes:
            self._tasks[node.node_id] = self._add(
                node.node_id, NodeState.PENDING, node.expected_seconds, start=False
            )

    def node_started(self, node_id: str, attempt: int) -> None:
        task = self._tasks[node_id]
        if attempt == 1:
            self.display.start_task(task)
        amount = f"attempt {attempt}" if attempt > 1 else ""
        self.display.update(task, state=NodeState.RUNNING, amount=amount, completed=0, total=None)

    def node_progressed(self, node_id: str, progress: Progress) -> None:
        of_total = "" if progress.total is None else f"/{progress.total:,}"
        self.display.update(
            self._tasks[node_id],
            completed=progress.done,
            total=progress.total,
            amount=f"{progress.done:,}{of_total} {progress.unit}",
        )

    def node_finished(self, result: NodeResult) -> None:
        task = self._tasks[result.node_id]
        # rich takes a task for finished when it is complete, which also stops its clock.
        self.display.update(task, state=result.state, completed=1, total=1)
        if result.error:
            self.display.update(task, amount=result.error.splitlines()[0])
        self.display.stop_task(task)

    def _add(self, name: str, state: NodeState, expected_seconds: float | None, start: bool) -> TaskID:
        return self.display.add_task(
            name, start=start, total=None, state=state, amount="", expected_seconds=expected_seconds
        )


class _NodeColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description, style=_STYLES[task.fields["state"]])


class _StateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        state: NodeState = task.fields["state"]
        return Text(state.value.replace("_", " "), style=_STYLES[state])


class _TimeLeftColumn(ProgressColumn):
    """Time left from the node's own progress, else from how long it took the last time."""

    def render(self, task: Task) -> Text:
        seconds = None if task.fields["state"] is not NodeState.RUNNING else _seconds_left(task)
        return Text("" if seconds is None else f"~{timedelta(seconds=round(seconds))} left", style="dim")


def _seconds_left(task: Task) -> float | None:
    if task.time_remaining is not None:
        return task.time_remaining
    expected: float | None = task.fields["expected_seconds"]
    if expected is None or task.elapsed is None or task.elapsed > expected:
        return None
    return expected - task.elapsed
