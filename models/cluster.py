"""A cluster of processes on this machine: their addresses, their words, and one end for all of them."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

CLUSTER = "TF_CONFIG"
"""Environment variable with a cluster's addresses and a process's place in it, as TensorFlow defines it."""
TEMPORARY_FAILURE = 75
"""Exit status (EX_TEMPFAIL of sysexits.h) of a task that failed because another was gone, not by its own fault."""

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0
_LAST_LINES = 8
_PR_SET_PDEATHSIG = 1

PROGRESS = "@progress "
"""Begins a line in which a task that trains tells, as JSON, how many steps are done."""

Emit = Callable[[str, str], None]
"""Takes the name of a task and a line that it printed."""


class ClusterError(RuntimeError):
    """A cluster whose work failed: the message names the task, how it ended and what it said last."""


@dataclass(frozen=True)
class Shape:
    """How many processes of what role.

    With parameter servers there is one chief more, which coordinates; else the first worker is the chief.
    """

    workers: int
    parameter_servers: int = 0

    @property
    def tasks(self) -> tuple[tuple[str, int], ...]:
        """Role and index of each process."""
        counts = {"worker": self.workers}
        if self.parameter_servers:
            counts = {"ps": self.parameter_servers, "worker": self.workers, "chief": 1}
        return tuple((role, index) for role, count in counts.items() for index in range(count))


def run(
    command: Sequence[str],
    shape: Shape,
    emit: Emit,
    *,
    restarts: int = 0,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Runs a command as every task of a cluster, each with its TF_CONFIG, until the work is done.

    The work is done when all workers have ended well; with parameter servers, when the chief has: the others
    serve it and are then ended. A task that was killed, or ended with `TEMPORARY_FAILURE`, is started again: a
    worker of a chief alone, for the chief hands its steps to others meanwhile; else all tasks, under new
    addresses. Whatever happens, no process is left.

    Args:
      command: the program and its arguments.
      shape: the cluster.
      emit: gets every line that a task prints, from threads, one at a time.
      restarts: how often tasks are started again.
      environment: of the tasks; this process's own by default.

    Returns:
      How often tasks were started again.

    Raises:
      ClusterError: when a task failed by its own fault or restarts are used up, or the command cannot be started.
    """
    base = dict(os.environ if environment is None else environment)
    used = 0
    while True:
        with _processes(command, shape, emit, base) as processes:
            while True:
                # Asked first: what serves may end as it likes once the work is done.
                if _is_done(processes, shape):
                    return used
                failed = _failed(processes)
                if failed is None:
                    time.sleep(_POLL_SECONDS)
                    continue
                if not failed.is_worth_another_try or used >= restarts:
                    raise ClusterError(failed.obituary(used))
                used += 1
                alone = bool(shape.parameter_servers) and failed.role == "worker"
                whom = failed.name if alone else "all tasks"
                emit("cluster", f"{failed.name} {failed.end}; starting {whom} again ({used} of {restarts})")
                if not alone:
                    break
                failed.start()


class _Process:
    """One task."""

    def __init__(
        self,
        command: Sequence[str],
        role: str,
        index: int,
        environment: Mapping[str, str],
        emit: Emit,
    ) -> None:
        self.role = role
        self.name = f"{role} {index}"
        self._command = list(command)
        self._environment = dict(environment)
        self._emit = emit
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Starts it, or starts it again.

        Raises:
          ClusterError: if the command is not there or may not be run.
        """
        try:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Of its own, so that what it starts ends with it.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        except OSError as error:
            raise ClusterError(f"{self._command[0]}: cannot be started: {error.strerror}") from error
        self._reader = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._reader.start()

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def is_worth_another_try(self) -> bool:
        """Whether it was killed, or fell with another."""
        return self.status is not None and (self.status < 0 or self.status == TEMPORARY_FAILURE)

    @property
    def end(self) -> str:
        """How it ended, in words."""
        status = self.status or 0
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"

    def obituary(self, restarts: int) -> str:
        """How it ended and what it said last."""
        if self._reader is not None:
            self._reader.join(_GRACE_SECONDS)
        tries = f" after {restarts} restarts" if restarts else ""
        said = "".join(f"\n  {line}" for line in self._last)
        return f"{self.name} {self.end}{tries}; its last lines:{said or ' none'}"

    def signal(self, number: signal.Signals) -> None:
        """Signals it and what it started; nothing where it has ended."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def wait(self, deadline: float) -> None:
        """Waits for its end, at most until then."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None, "the pipe was asked for"
        with process.stdout as lines:
            for line in lines:
                text = line.rstrip("\n")
                if text.strip():
                    self._last.append(text)
                self._emit(self.name, text)


@contextmanager
def _processes(
    command: Sequence[str], shape: Shape, emit: Emit, environment: Mapping[str, str]
) -> Iterator[tuple[_Process, ...]]:
    """The started tasks, all ended on the way out."""
    one_at_a_time = threading.Lock()

    def in_turn(name: str, line: str) -> None:
        with one_at_a_time:
            emit(name, line)

    cluster = _addresses(shape)
    processes = tuple(
        _Process(command, role, index, {**environment, CLUSTER: _config(cluster, role, index)}, in_turn)
        for role, index in shape.tasks
    )
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in processes:
            process.wait(deadline)
        for process in processes:
            process.signal(signal.SIGKILL)
        for process in processes:
            process.wait(time.monotonic() + _GRACE_SECONDS)


def _failed(processes: Sequence[_Process]) -> _Process | None:
    """The task that failed; of several the one that was killed, for the others fell with it."""
    failed = [process for process in processes if process.status]
    return min(failed, key=lambda process: process.status or 0, default=None)


def _is_done(processes: Sequence[_Process], shape: Shape) -> bool:
    serving = ("ps", "worker") if shape.parameter_servers else ()
    return all(process.status == 0 for process in processes if process.role not in serving)


def _addresses(shape: Shape) -> dict[str, list[str]]:
    """A free port of this machine for each task, by role."""
    cluster: dict[str, list[str]] = {}
    with ExitStack() as held:
        for role, _ in shape.tasks:
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            cluster.setdefault(role, []).append(f"127.0.0.1:{listener.getsockname()[1]}")
    return cluster


def _config(cluster: Mapping[str, Sequence[str]], role: str, index: int) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": role, "index": index}})


def _die_with_parent() -> None:
    """In the task, before its program: the kernel ends it when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
