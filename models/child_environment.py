"""What a Python process that trains for this one needs of the environment."""

from __future__ import annotations

import os
from pathlib import Path

from models.cluster import CLUSTER

_ROOT = Path(__file__).resolve().parents[1]


def child_environment() -> dict[str, str]:
    """This process's environment, with this code, the Keras it is written for, and GPUs that several can share.

    Without this process's place in a cluster, which is not the child's.
    """
    inherited = {name: value for name, value in os.environ.items() if name != CLUSTER}
    paths = [str(_ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
    return {
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        **inherited,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_USE_LEGACY_KERAS": "1",
    }
