"""Atomic, versioned pushes: a reader of the serving folder sees a whole version or none."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from ingest.flushing import flush

MANIFEST = "manifest.json"
DESTINATION = "pushed_destination"
"""Custom property of the artifact of a push: the folder of what was pushed; TFX's name for it."""
_NOTE = "folder"
"""The file of that artifact that says the same to whoever cannot ask ML Metadata."""
_ORIGINS = ("model", "model_version", "source_sha256")
"""Facts that say of what a version was made."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PARTIAL = ".partial-"


class PushError(Exception):
    """A push that did not happen; the serving folder is as it was."""


@dataclass(frozen=True)
class Pushed:
    """A pushed version and its folder."""

    version: int
    folder: Path


def push(model: Path, folder: Path, facts: Mapping[str, Any], after: int = 0) -> Pushed:
    """Copies a model into a serving folder as its next version.

    The copy is made under a name that no model server reads, flushed to disk, and renamed in one step. Leftovers of
    pushes that were killed are removed.

    Args:
      model: folder of a SavedModel.
      folder: serving folder; made if it is not there.
      facts: written into the version's `manifest.json`, beside SHA-256 and size of every file.
      after: a version known to have been there, which the folder may have forgotten if it was emptied.

    Raises:
      PushError: if the copy cannot be made, for example because the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _exclusive(folder) as lock:
            for leftover in folder.glob(f"{_PARTIAL}*"):
                shutil.rmtree(leftover)
            version = max((*versions(folder), _last_version(lock), after)) + 1
            partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder))
            try:
                shutil.copytree(model, partial, dirs_exist_ok=True)
                write_manifest(partial, partial, version, facts)
                _flush(partial)
                partial.chmod(0o755)
                _remember(version, lock)
                partial.rename(folder / str(version))
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            flush(folder)
    except OSError as error:
        # copytree gathers the errors of single files and drops their numbers; their words are what is left.
        full = error.errno in _FULL or any(os.strerror(number) in str(error) for number in _FULL)
        cause = "the disk is full" if full else error.strerror or str(error)
        raise PushError(f"{folder}: nothing was pushed: {cause}; free or correct it and run again") from error
    return Pushed(version, folder / str(version))


def note(artifact: Path, pushed: Pushed) -> None:
    """Leaves in the folder of an artifact where its content was pushed to."""
    artifact.mkdir(parents=True, exist_ok=True)
    (artifact / _NOTE).write_text(str(pushed.folder), encoding="utf-8")


def last_noted(artifacts: Path, folder: Path) -> int:
    """The last version that the artifacts in a folder say was pushed, even if all of `folder` was deleted since."""
    pushed = (Path(path.read_text(encoding="utf-8")) for path in artifacts.glob(f"*/{_NOTE}"))
    return max((int(version.name) for version in pushed if version.parent == folder), default=0)


def versions(folder: Path) -> list[int]:
    """The versions in a serving folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isascii() and path.name.isdigit())


def damaged(version_folder: Path) -> list[str]:
    """Files of a pushed version that are missing or differ from its manifest; the manifest if it is unreadable."""
    try:
        manifest = json.loads((version_folder / MANIFEST).read_text(encoding="utf-8"))
        promised = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [MANIFEST]
    return [
        name
        for name, digest in promised.items()
        if not (version_folder / name).is_file() or _sha256(version_folder / name) != digest
    ]


def same_version(folder: Path, model: Path, facts: Mapping[str, Any]) -> Pushed | None:
    """The last version of a serving folder, if it is whole and a push of the same would make it once more."""
    last = next(reversed(versions(folder)), None)
    if last is None or damaged(folder / str(last)):
        return None
    manifest = json.loads((folder / str(last) / MANIFEST).read_text(encoding="utf-8"))
    return Pushed(last, folder / str(last)) if is_same(manifest, files_of(model), facts) else None


def is_same(manifest: Mapping[str, Any], files: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether a manifest is of these very files, made of the same."""
    return manifest.get("files") == files and all(manifest.get(key) == facts.get(key) for key in _ORIGINS)


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """SHA-256 and size of every file in a folder.

    Raises:
      PushError: if there are no files.
    """
    files = {
        str(path.relative_to(folder)): {"sha256": _sha256(path), "size_bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if not files:
        raise PushError(f"{folder}: nothing was pushed: there is no model to push; run the Trainer again")
    return files


def write_manifest(folder: Path, place: Path, version: int, facts: Mapping[str, Any]) -> Path:
    """Writes the manifest of the files in a folder to a place, and returns it.

    Raises:
      PushError: if there are no files.
    """
    files = files_of(folder)
    pushed_at = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"version": version, "pushed_at": pushed_at, **facts, "files": files}, indent=1)
    path = place / MANIFEST
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


@contextmanager
def _exclusive(folder: Path) -> Iterator[IO[str]]:
    """Two pushers at once get two versions, one after the other."""
    with (folder / ".lock").open("a+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _last_version(lock: IO[str]) -> int:
    """The last version ever: a server would take a deleted version's number for the model it already has."""
    lock.seek(0)
    text = lock.read().strip()
    return int(text) if text.isascii() and text.isdigit() else 0


def _remember(version: int, lock: IO[str]) -> None:
    lock.truncate(0)
    lock.write(f"{version}\n")
    lock.flush()
    os.fsync(lock.fileno())
