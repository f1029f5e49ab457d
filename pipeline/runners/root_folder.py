"""The folder one pipeline lives in: where things are, and who may write there now."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class RootFolderError(Exception):
    """The pipeline's folder cannot be used."""


class PipelineBusyError(RootFolderError):
    """Another process is running a pipeline in the same folder."""


@dataclass(frozen=True)
class RootFolder:
    """Names of everything under one pipeline root (an absolute path)."""

    path: Path

    @property
    def metadata_path(self) -> Path:
        return self.path / "metadata.sqlite"

    @property
    def artifacts_path(self) -> Path:
        return self.path / "artifacts"

    @property
    def runs_path(self) -> Path:
        return self.path / "runs"

    @property
    def lock_path(self) -> Path:
        return self.path / ".lock"

    def run_path(self, run_id: str) -> Path:
        return self.runs_path / run_id

    def log_path(self, run_id: str, name: str) -> Path:
        return self.run_path(run_id) / "logs" / f"{name}.log"


@contextmanager
def exclusive(root: RootFolder) -> Iterator[None]:
    """Hold the folder for this process alone, creating it if need be.

    The kernel drops the lock when the process dies, however it dies, so a lock is never stale.

    Raises:
        PipelineBusyError: another process holds it; the error names the folder and that process's id.
        RootFolderError: the folder cannot be created or written.
    """
    try:
        for folder in (root.path, root.artifacts_path, root.runs_path):
            folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RootFolderError(
            f"{root.path}: cannot write here ({error.strerror}); "
            "choose another output folder or fix its rights"
        ) from error
    try:
        _lock_or_name_holder(descriptor, root)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock_or_name_holder(descriptor: int, root: RootFolder) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
        raise PipelineBusyError(
            f"{root.path}: a pipeline is already running in this folder (process {holder}); "
            "wait for it to end, stop it, or choose another output folder"
        ) from error
