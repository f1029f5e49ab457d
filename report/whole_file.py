"""A file on disk: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that whoever reads meanwhile, or after a kill, finds the old text or the new one."""
    unfinished = path.with_name(f"{path.name}.partial")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
