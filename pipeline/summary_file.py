"""A run's outcome in short, as it is kept beside the run's record; knows no TFX."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    Attributes:
      metrics: of the candidate on all rows of the test split; empty where it was not evaluated.
      refusals: the gates' reasons, where data or a model were refused.
      warnings: checks that did not hold and stop nothing: name, figure and bound.
      overridden: refusals that somebody answers for: the same, with owner and reason.
      pushed: folder of the version that this run pushed, or reused from the cache.
      report: the HTML page.
      devices: folder of the device models that this run pushed, or reused from the cache.
      tuned: file of the hyperparameters that a search found.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()
    pushed: str | None = None
    report: str | None = None
    tuned: str | None = None
    devices: str | None = None


def summary_path(root: Path, run_id: str) -> Path:
    """Where the summary of a run lies."""
    return root / "runs" / run_id / "summary.json"


def read_summary(root: Path, run_id: str) -> Summary | None:
    """The summary of a run; None for a run that was killed before it was written."""
    path = summary_path(root, run_id)
    if not path.exists():
        return None
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Summary(**known)
