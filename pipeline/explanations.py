"""What was found out about a run after it, beside its record: residuals and ablation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from gates.ablation import Ablation
from gates.evidence import Residuals
from pipeline.runners.root_folder import RootFolder

_FILES: dict[type[Ablation] | type[Residuals], str] = {Ablation: "ablation.json", Residuals: "residuals.json"}

_Explanation = TypeVar("_Explanation", Ablation, Residuals)


def path(root: Path, run_id: str, kind: type[Ablation] | type[Residuals]) -> Path:
    """Where an explanation of a run lies."""
    return RootFolder(root).run_path(run_id) / _FILES[kind]


def write(root: Path, run_id: str, found: Ablation | Residuals) -> Path:
    """Writes it whole or not at all, and returns its path."""
    target = path(root, run_id, type(found))
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(TypeAdapter(type(found)).dump_json(found, indent=1))
        file.flush()
        os.fsync(file.fileno())
    return partial.replace(target)


def read(root: Path, run_id: str, kind: type[_Explanation]) -> _Explanation | None:
    """What was written; None where nothing was.

    Raises:
      pydantic.ValidationError: if it is not of that kind.
    """
    source = path(root, run_id, kind)
    return TypeAdapter(kind).validate_json(source.read_bytes()) if source.exists() else None
