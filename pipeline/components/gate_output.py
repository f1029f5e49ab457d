"""What a gate component leaves behind: its verdicts and what it measured, also where it stops the run.

TFX removes the outputs of a component that fails, and a gate that stops the run fails. What a refusing gate found is
therefore kept in the folder of the run, which the local runner names in the environment; elsewhere the error has it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tfx.types import artifact

from gates import evidence
from gates.overrides import refusals
from gates.settings import Override
from gates.verdict import Verdict

FILE = "verdict.json"
REFUSED_FOLDER = "HEADWORKS_REFUSED_FOLDER"
"""Environment variable: where the node that runs now keeps the verdicts of a refusal."""

Evidence = evidence.DataEvidence | evidence.ModelEvidence | evidence.ServingEvidence | evidence.DeviceEvidence


class GateVerdict(artifact.Artifact):
    """The verdicts of a gate, a JSON list in `verdict.json`, and its figures in `evidence.json`."""

    TYPE_NAME = "pipeline.GateVerdict"


class RefusedError(Exception):
    """A gate stops the run; the message holds every refusal. Another try would be another throw of the dice."""

    is_final = True


def write(verdicts: Sequence[Verdict], found: Evidence | None, folder: Path) -> None:
    """Writes verdicts and figures into the folder of an artifact; `found` is None where nothing could be measured."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("w", encoding="utf-8") as file:
        json.dump([verdict.to_json() for verdict in verdicts], file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    if found is not None:
        evidence.write(found, folder)


def read_verdicts(folder: Path) -> tuple[Verdict, ...]:
    """Reads the verdicts that `write` wrote; none where the folder holds none."""
    path = folder / FILE
    if not path.exists():
        return ()
    return tuple(Verdict.from_json(entry) for entry in json.loads(path.read_text(encoding="utf-8")))


def write_or_stop(verdicts: Sequence[Verdict], found: Evidence | None, folder: Path) -> None:
    """Writes what a gate found, and stops the run if it refuses.

    Raises:
      RefusedError: with every refusal, if there is one.
    """
    reasons = tuple(refusals(verdicts))
    if not reasons:
        write(verdicts, found, folder)
        return
    if kept := os.environ.get(REFUSED_FOLDER):
        write(verdicts, found, Path(kept))
    raise RefusedError("; ".join(reasons))


def overrides(exec_properties: Mapping[str, Any]) -> tuple[Override, ...]:
    """Of the component's parameter `overrides`, a JSON list, those that count today: a schedule outlives some."""
    today = datetime.now(UTC).date().isoformat()
    given = TypeAdapter(tuple[Override, ...]).validate_json(exec_properties["overrides"])
    return tuple(override for override in given if override.until is None or override.until >= today)
