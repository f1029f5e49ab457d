"""How long a run keeps machines, from how long its tasks took before. Hours of machines, never money."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud.api_errors import CloudError
from cloud.spec_tasks import Task
from cloud.worker_pools import tuning_pools, worker_pools

if TYPE_CHECKING:
    from pipeline.environment import Environment

_LOCAL = "of a machine like this one; others take another time, and starting them is not counted"
_RAN = frozenset({"succeeded"})
"""States of tasks that did their work; one from the cache took no time, one that failed took some other."""


@dataclass(frozen=True)
class Pool:
    """Machines that a task starts beside its own, `least` to `most` of them."""

    role: str
    machine: str
    least: int
    most: int

    def __str__(self) -> str:
        count = str(self.least) if self.least == self.most else f"{self.least}-{self.most}"
        return f"{self.role}: {count} x {self.machine}"


@dataclass(frozen=True)
class PlannedTask:
    """A task with all that it keeps busy. `seconds` is how long it took before; None: not known."""

    task: Task
    pools: tuple[Pool, ...]
    seconds: float | None

    @property
    def hours(self) -> tuple[float, float] | None:
        """Machine-hours, the least and the most."""
        if self.seconds is None or self.task.image is None:
            return None
        least = 1 + sum(pool.least for pool in self.pools)
        most = 1 + sum(pool.most for pool in self.pools)
        return least * self.seconds / 3600, most * self.seconds / 3600


@dataclass(frozen=True)
class Durations:
    """How long tasks took, in seconds by task, and in whose words: `source`."""

    seconds: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Estimate:
    """Machine-hours of a run: of those tasks whose duration is known."""

    least: float
    most: float
    unknown: tuple[str, ...]


def planned(
    tasks: list[Task], settings: Environment, strategy: str, durations: Durations | None
) -> list[PlannedTask]:
    """What each task keeps busy.

    Args:
      tasks: of the job.
      settings: of the environment.
      strategy: of the training, which decides on the machines of its custom job.
      durations: of earlier runs.
    """
    seconds = durations.seconds if durations is not None else {}
    return [
        PlannedTask(task, tuple(_pools(task, settings, strategy)), seconds.get(task.name)) for task in tasks
    ]


def estimate(plan: list[PlannedTask]) -> Estimate:
    """The sum over a plan."""
    known = [task.hours for task in plan if task.hours is not None]
    unknown = tuple(one.task.name for one in plan if one.task.image is not None and one.hours is None)
    return Estimate(sum(least for least, _ in known), sum(most for _, most in known), unknown)


def read_durations(file: Path) -> Durations:
    """Durations from a record of a run: `run.json` of a local one, or what `headworks status --json` printed.

    Raises:
      CloudError: if it is neither.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        found = dict(_seconds(record))
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise CloudError(
            f"{file}: no durations to be read ({error!r}); want a run.json, or the output of `headworks status --json`"
        ) from error
    if not found:
        raise CloudError(f"{file}: no task that ran to its end; name another run")
    how = "on Vertex AI, with the machines of then" if "tasks" in record else _LOCAL
    return Durations(found, f"run {record.get('run_id', file)} {how}")


def local_durations(root: Path) -> Durations | None:
    """How long each task took when it last ran here; None where nothing did.

    Args:
      root: the pipeline's output folder.
    """
    from pipeline.runners.records import RunState, load_runs

    seconds: dict[str, float] = {}
    used = []
    for record in load_runs(root):
        if record.state == RunState.SUCCEEDED:
            ran = {name: node.seconds for name, node in record.nodes.items() if str(node.state) in _RAN}
            seconds |= ran
            used.append(record.run_id)
    return Durations(seconds, f"runs up to {used[-1]} in {root} {_LOCAL}") if seconds else None


def _seconds(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if "tasks" in record:
        for task in record["tasks"]:
            if task["state"] in _RAN and task["seconds"] is not None:
                yield task["name"], float(task["seconds"])
    else:
        for name, node in record.get("nodes", {}).items():
            if node["state"] in _RAN:
                yield name, float(node["seconds"])


def _pools(task: Task, settings: Environment, strategy: str) -> Iterator[Pool]:
    training, beam = settings.training, settings.beam
    if training is not None and task.image is not None:
        if task.name == "Trainer":
            yield from map(_pool, worker_pools(training, strategy, task.image, (), ()))
        elif task.name == "Tuner":
            yield from map(_pool, tuning_pools(training, settings.tuning, task.image, (), ()))
    if beam is not None and beam.runner == "dataflow" and task.name in beam.nodes:
        yield Pool("Dataflow", beam.machine_type, beam.min_workers, beam.max_workers)


def _pool(pool: Mapping[str, Any]) -> Pool:
    """A pool of a custom job as the API takes it."""
    spec, count = pool["machineSpec"], int(pool["replicaCount"])
    accelerator = spec.get("acceleratorType")
    beside = f" with {spec['acceleratorCount']} x {accelerator}" if accelerator else ""
    return Pool("custom job", f"{spec['machineType']}{beside}", count, count)
