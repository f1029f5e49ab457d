"""The commands of a job's containers, as processes of this machine that end with all they have started."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from pipeline.container import REHEARSAL
from pipeline.source_digest import ROOT

_PYTHON = ("python", "python3")
_LAST_LINES = 25


class CommandFailedError(Exception):
    """A command that could not be started or ended with an error; the message ends with the end of its log."""


class Commands:
    """Runs commands, several at a time, until all are stopped."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def run(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        """Runs a command, its output added to a log, and waits for it.

        Raises:
          CommandFailedError: if it cannot be started, ends with an error, or is stopped.
        """
        argv = [sys.executable if command[0] in _PYTHON else command[0], *command[1:]]
        with tempfile.TemporaryDirectory(prefix="headworks-") as scratch, log.open("ab") as output:
            output.write(f"$ {shlex.join(argv)}\n".encode())
            output.flush()
            try:
                process = self._start(argv, {**environment(), "TMPDIR": scratch, **env}, output.fileno())
            except OSError as error:
                raise CommandFailedError(f"{argv[0]} cannot be started: {error.strerror}") from error
            try:
                code = process.wait()
            finally:
                self._end(process)
        if self.stopped.is_set():
            raise CommandFailedError("stopped")
        if code:
            raise CommandFailedError(f"{_told(code)}; the end of {log}:\n{last_lines(log)}")

    def stop(self) -> None:
        """Kills all that run, with all they have started; commands yet to come are refused."""
        with self._lock:
            self.stopped.set()
            running = tuple(self._running)
        for process in running:
            _kill_group(process)

    def _start(self, argv: Sequence[str], env: Mapping[str, str], log: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self.stopped.is_set():
                raise CommandFailedError("stopped before it began")
            process = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """What a container's first process leaves behind ends with it."""
        _kill_group(process)
        process.wait()
        with self._lock:
            self._running.discard(process)


def environment() -> dict[str, str]:
    """Environment variables of every command: this process's, with this code and this Python found first."""
    given = dict(os.environ)
    path = given.get("PYTHONPATH")
    return {
        **given,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), given.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), path] if path else [str(ROOT)]),
        "PYTHONUNBUFFERED": "1",
        "TF_USE_LEGACY_KERAS": "1",
        REHEARSAL: "1",
    }


def modules_of(command: Sequence[str]) -> Iterator[str]:
    """Yields the modules a command names: the one Python runs, and that of TFX's executor class."""
    if command and command[0] in _PYTHON and "-m" in command[1:-1]:
        yield command[command.index("-m") + 1]
    if "--executor_class_path" in command[:-1]:
        yield command[command.index("--executor_class_path") + 1].rpartition(".")[0]


def is_module(name: str) -> bool:
    """Whether a command would find a module; nothing is imported."""
    package, *inner = name.split(".")
    found = PathFinder.find_spec(package, [str(Path.cwd()), str(ROOT), *sys.path])
    if found is None:
        # What is installed from its sources has a finder of its own.
        found = next((spec for finder in sys.meta_path if (spec := finder.find_spec(package, None))), None)
    for part in inner:
        if found is None or found.submodule_search_locations is None:
            return False
        # By the last part of its name: the finder looks up packages above in sys.modules, where they are not.
        found = PathFinder.find_spec(part, list(found.submodule_search_locations))
    return found is not None


def last_lines(log: Path) -> str:
    """The end of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line[:400]}" for line in lines[-_LAST_LINES:])


def _told(code: int) -> str:
    if code > 0:
        return f"its command ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = "; was the machine out of memory?" if name == "SIGKILL" else ""
    return f"its command was killed by {name}{hint}"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
