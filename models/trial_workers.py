"""Trials at the same time on this machine: KerasTuner's chief, which hands them out, and workers that run them.

Each is a fresh process, `python -P -m models.trial_workers ARGUMENTS.json`; KerasTuner's environment variables say
who it is. All stay in the process group of whoever started them, and end when that process does, however it does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from models.child_environment import child_environment

_ADDRESS = "127.0.0.1"
_CHIEF = "chief"
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0
_LAST_CHARACTERS = 600


class TrialWorkersError(RuntimeError):
    """A process of the search ended before its time; the message names it and what it said last."""


@dataclass(frozen=True)
class _Member:
    """One process of the search, its name and where it writes what it says."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def obituary(self) -> str:
        """How it ended and what it said last."""
        status = self.process.returncode
        end = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
        said = self.log.read_text(encoding="utf-8", errors="replace").strip()[-_LAST_CHARACTERS:]
        return f"{self.name} of the search {end}; all of {self.log} ends with:\n{said or '(nothing)'}"


def run(
    arguments: Mapping[str, Any], workers: int, folder: Path, on_poll: Callable[[], None] = lambda: None
) -> None:
    """Runs a search to its end in processes of this machine; none is left, whatever happens.

    Args:
      arguments: what `models.tuner.build_tuner` reads of what TFX hands it, as JSON takes it.
      workers: processes that run trials, beside the one that hands them out.
      folder: gets the arguments and a log for each process.
      on_poll: called a few times a second meanwhile.

    Raises:
      TrialWorkersError: if one of them failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = folder / "arguments.json"
    given.write_text(json.dumps(dict(arguments)), encoding="utf-8")
    names = (_CHIEF, *(f"worker {number}" for number in range(workers)))
    with _members(names, given, workers) as (chief, *others):
        while any(member.process.poll() is None for member in others):
            _check(chief, *others)
            on_poll()
            time.sleep(_POLL_SECONDS)
        # The chief would wait some time more for workers that have gone: all it knows is on disk.
        _check(*others)


def _check(*members: _Member) -> None:
    for member in members:
        if member.process.poll():
            raise TrialWorkersError(member.obituary())


@contextmanager
def _members(names: tuple[str, ...], arguments: Path, workers: int) -> Iterator[list[_Member]]:
    """The started processes, all ended on the way out."""
    members: list[_Member] = []
    shared = _environment(workers)
    try:
        for name in names:
            log = arguments.with_name(f"{name.replace(' ', '-')}.log")
            with log.open("wb") as said:
                process = subprocess.Popen(
                    # -P: a folder of the user's that is called models would be taken for ours.
                    [sys.executable, "-P", "-m", "models.trial_workers", str(arguments)],
                    env={**shared, "KERASTUNER_TUNER_ID": name},
                    # Never written to: it closes when this process ends.
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                )
            members.append(_Member(name, process, log))
        yield members
    finally:
        for member in members:
            member.process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for member in members:
            _end(member.process, deadline)


def _end(process: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdin is not None, "the pipe was asked for"
    process.stdin.close()


def _environment(workers: int) -> dict[str, str]:
    """What all processes share."""
    return {
        "TF_NUM_INTRAOP_THREADS": str(max(1, len(os.sched_getaffinity(0)) // workers)),
        **child_environment(),
        "KERASTUNER_ORACLE_IP": _ADDRESS,
        "KERASTUNER_ORACLE_PORT": str(_free_port()),
        # gRPC would ask a proxy for this machine.
        "no_grpc_proxy": _ADDRESS,
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_ADDRESS, 0))
        port: int = listener.getsockname()[1]
        return port


def main(arguments: Path) -> None:
    """Takes part in the search as whom the environment names."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from models.tuner import build_tuner

    fn_args = SimpleNamespace(**json.loads(arguments.read_text(encoding="utf-8")))
    build_tuner(fn_args).take_part()


def _end_with_parent() -> None:
    """Waits for the end of the pipe whose other end only the parent holds."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
