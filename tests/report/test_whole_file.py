"""A page that cannot be written to its end leaves the one before."""

import errno
import os
from pathlib import Path

import pytest

from report.whole_file import write_whole


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "compare.html"
    write_whole(page, "old")

    def is_full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", is_full)
        with pytest.raises(OSError, match="No space left"):
            write_whole(page, "new")
    assert page.read_text() == "old"
    write_whole(page, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["compare.html"]
    assert page.read_text() == "new"
