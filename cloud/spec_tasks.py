"""The tasks of a compiled job, as its PipelineSpec says them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """What one task runs on.

    Attributes:
      name: of the task.
      image: of its container; None: the service does it without one, such as an importer.
      cpus: and
      memory_gb: of its machine, at least; None: the service's default.
      accelerator: kind of accelerator.
      accelerators: how many of them.
      retries: more tries after a failure.
    """

    name: str
    image: str | None = None
    cpus: float | None = None
    memory_gb: float | None = None
    accelerator: str | None = None
    accelerators: int = 0
    retries: int = 0

    @property
    def machine(self) -> str:
        """In words."""
        if self.image is None:
            return "none"
        parts = [
            f"{self.cpus:g} CPUs" if self.cpus else "",
            f"{self.memory_gb:g} GiB" if self.memory_gb else "",
            f"{self.accelerators} x {self.accelerator}" if self.accelerator else "",
        ]
        return ", ".join(part for part in parts if part) or "the service's default"


def tasks(job: Json) -> list[Task]:
    """The tasks of a job, those inside of conditions and loops among them, each after those it waits for."""
    spec = job["pipelineSpec"]
    return list(_tasks(spec["root"].get("dag", {}), spec))


def images(job: Json) -> list[str]:
    """The images of a job's containers, each once."""
    return list(dict.fromkeys(task.image for task in tasks(job) if task.image is not None))


def _tasks(dag: Json, spec: Json) -> Iterator[Task]:
    given = dag.get("tasks", {})
    waits_for = {name: given[name].get("dependentTasks", ()) for name in sorted(given)}
    for name in TopologicalSorter(waits_for).static_order():
        task = given[name]
        component = spec.get("components", {}).get(task["componentRef"]["name"], {})
        if "dag" in component:
            yield from _tasks(component["dag"], spec)
            continue
        executors = spec.get("deploymentSpec", {}).get("executors", {})
        container = executors.get(component.get("executorLabel"), {}).get("container", {})
        resources = container.get("resources", {})
        accelerator = resources.get("accelerator", {})
        yield Task(
            name,
            container.get("image"),
            resources.get("cpuLimit"),
            resources.get("memoryLimit"),
            accelerator.get("type"),
            int(accelerator.get("count", 0)),
            int(task.get("retryPolicy", {}).get("maxRetryCount", 0)),
        )
