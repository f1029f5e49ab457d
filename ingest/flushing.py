"""What was written, on disk before the next step counts on it."""

from __future__ import annotations

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Returns when a file, or the entries of a folder, would outlive a loss of power.

    Raises:
      OSError: if the disk does not take them.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
