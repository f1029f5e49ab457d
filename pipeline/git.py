"""What git says of a folder."""

import subprocess
from pathlib import Path


def git_revision(folder: Path) -> str | None:
    """Return the commit checked out in `folder`, with `-dirty` if files differ from it; None outside git."""
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
