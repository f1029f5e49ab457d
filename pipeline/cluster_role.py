"""What this process is among the machines of a training, as TF_CONFIG says it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

_CHIEFS = ("chief", "master")


@dataclass(frozen=True)
class Role:
    """A task of a cluster; a process on its own is a chief without others.

    Attributes:
      kind: `chief`, `worker`, `ps` or `evaluator`.
      index: among those of its kind.
      is_clustered: whether there are other processes.
      publishes: whether this process leaves what the cluster made: the chief, or the first worker where there is none.
    """

    kind: str
    index: int
    is_clustered: bool
    publishes: bool


def role() -> Role:
    """The role of this process."""
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    cluster, task = config.get("cluster") or {}, config.get("task") or {}
    kind, index = task.get("type", _CHIEFS[0]), int(task.get("index", 0))
    has_chief = any(cluster.get(name) for name in _CHIEFS)
    publishes = kind in _CHIEFS or (not has_chief and kind == "worker" and index == 0)
    return Role(kind, index, sum(len(addresses) for addresses in cluster.values()) > 1, publishes)
