"""The TFX pipeline: configuration, wiring, components and runners."""

from __future__ import annotations

import importlib
from typing import Any

_ARTIFACT_TYPES = {
    "GateVerdict": "pipeline.components.gate_output",
    "QuarantinedRows": "pipeline.components.quarantine",
    "DeviceModelFiles": "pipeline.components.device_models",
}
"""Types of artifacts by the names that a compiled pipeline gives them: TFX finds a class under two names at most."""


def __getattr__(name: str) -> Any:
    """Loads the type of an artifact when a container asks for it."""
    if name not in _ARTIFACT_TYPES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ARTIFACT_TYPES[name]), name)
