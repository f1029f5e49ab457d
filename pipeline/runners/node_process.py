"""Run one function in a forked child that can be watched, timed and killed.

The child gets a process group of its own, writes everything it says (file descriptors 1 and 2, and logging)
to a log file, and forwards records of the `headworks.progress` logger to the parent:

    logging.getLogger("headworks.progress").info("rows", extra={"done": 123, "total": 456, "unit": "rows"})

It does not outlive the parent: when the parent dies, however it dies, the child's whole group is killed.
"""

import logging
import multiprocessing
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pipeline.runners import fork_server
from pipeline.runners.events import Progress

PROGRESS_LOGGER = "headworks.progress"

_PROGRESS_INTERVAL_SECONDS = 0.1
# A child that has delivered its answer may still wait for threads a library left behind; it is not waited
# for.
_FAREWELL_SECONDS = 2.0
_MESSAGE_LIMIT = 2_000


class ChildFailedError(Exception):
    """The function raised, or its process died; the message is the cause in one line."""


class ChildRefusedError(ChildFailedError):
    """The function raised an error that says of itself that another try would be wrong: `is_final`."""


class ChildTimedOutError(ChildFailedError):
    """The function took longer than it may."""


class ChildKilledError(ChildFailedError):
    """The process died without an answer, so whatever it was writing is half-written."""


@dataclass(frozen=True)
class Answer:
    """What the function returned, and the largest resident memory of its process or of any it waited for."""

    value: Any
    peak_rss_bytes: int


@dataclass(frozen=True)
class _Failure:
    cause: str
    is_final: bool = False


class NodeProcess:
    """One forked child. `run` may be called once; `kill` from any thread, at any time, repeatedly."""

    def __init__(self, log_path: Path, name: str) -> None:
        self._log_path = log_path
        self._name = name
        self._process: BaseProcess | None = None
        self._is_killed = False
        self._lock = threading.Lock()

    def run(
        self,
        function: str,
        *arguments: Any,
        timeout_seconds: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Answer:
        """Call `function(*arguments)` in the child and wait for it.

        `function` is a dotted path, `package.module:name`, because the module may be one that the parent must
        not load. Arguments and the returned value are pickled, so their types have to be light ones.

        Raises:
            ChildFailedError: the function raised.
            ChildTimedOutError: it was still running after `timeout_seconds` and has been killed.
            ChildKilledError: the process died without an answer.
        """
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        context = fork_server.fork_context()
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_serve, args=(sender, self._log_path, function, arguments), name=self._name, daemon=False
        )
        with receiver:
            with sender, self._lock:
                if self._is_killed:
                    raise ChildKilledError(f"{self._name}: stopped before it began")
                try:
                    process.start()
                except (OSError, EOFError) as error:
                    raise ChildKilledError(
                        "the process that loads TFX ended; run `headworks doctor` to see what is broken"
                    ) from error
                self._process = process
            try:
                return self._listen(receiver, process, timeout_seconds, on_progress)
            finally:
                process.join(_FAREWELL_SECONDS)
                self.kill()
                process.join()

    def kill(self) -> None:
        """Kill the child and everything it started."""
        with self._lock:
            self._is_killed = True
            process = self._process
        if process is None or process.pid is None:
            return
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            # Either all of the group is gone, or the child has not founded its group yet.
            if process.is_alive():
                process.kill()

    def _listen(
        self,
        receiver: Connection,
        process: BaseProcess,
        timeout_seconds: float | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> Answer:
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait([receiver, process.sentinel], remaining)
            if not ready:
                self.kill()
                raise ChildTimedOutError(f"{self._name}: took longer than its limit of {timeout_seconds:g} s")
            # The last message may arrive together with the end of the process: read before giving up.
            message = _receive(receiver) if receiver in ready or receiver.poll() else None
            match message:
                case Answer():
                    return message
                case _Failure():
                    kind = ChildRefusedError if message.is_final else ChildFailedError
                    raise kind(message.cause)
                case Progress():
                    if on_progress is not None:
                        on_progress(message)
                case None:
                    raise ChildKilledError(self._obituary(process))

    def _obituary(self, process: BaseProcess) -> str:
        process.join()
        code = process.exitcode or 0
        if code >= 0:
            return (
                f"{self._name}: its process ended without an answer (exit code {code}); see {self._log_path}"
            )
        name = signal.Signals(-code).name
        hint = "; was the machine out of memory?" if name == "SIGKILL" else ""
        return f"{self._name}: its process was killed by {name}{hint}; see {self._log_path}"


def _receive(receiver: Connection) -> Any:
    try:
        return receiver.recv()
    except EOFError:
        return None


def describe(error: BaseException) -> str:
    """Return `Type: message` of an error and, if it was caused by another, that of the innermost cause."""
    root = error
    while (inner := _inner(root)) is not None:
        root = inner
    text = _one_error(error)
    return text if root is error else f"{text} (cause: {_one_error(root)})"


def _inner(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


def _one_error(error: BaseException) -> str:
    message = str(error).strip()
    if len(message) > _MESSAGE_LIMIT:
        message = message[:_MESSAGE_LIMIT] + " …"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _serve(sender: Connection, log_path: Path, function: str, arguments: tuple[Any, ...]) -> None:
    """Body of the child: set the stage, call the function, send exactly one answer or failure."""
    os.setsid()
    threading.Thread(target=_die_with_parent, name="die-with-parent", daemon=True).start()
    _write_everything_to(log_path)
    forwarder = _ProgressForwarder(sender)
    progress_logger = logging.getLogger(PROGRESS_LOGGER)
    progress_logger.setLevel(logging.INFO)
    progress_logger.addHandler(forwarder)
    try:
        value = pkgutil.resolve_name(function)(*arguments)
    except Exception as error:  # noqa: BLE001  # the one place that turns any error into plain data
        traceback.print_exc()
        message: Answer | _Failure = _Failure(describe(error), bool(getattr(error, "is_final", False)))
    else:
        message = Answer(value, _peak_rss_bytes())
    progress_logger.removeHandler(forwarder)
    forwarder.send(message)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(os.getpid(), signal.SIGKILL)


def _write_everything_to(log_path: Path) -> None:
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # Forked from a process whose streams may be buffered by the block: a killed child must leave its last
    # words.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    _open_absl_logger()


def _open_absl_logger() -> None:
    """Let TFX's own log through: absl's logger is shut below WARNING until told otherwise."""
    logging.getLogger("absl").setLevel(logging.INFO)


def _peak_rss_bytes() -> int:
    kibibytes = max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return kibibytes * 1024


class _ProgressForwarder(logging.Handler):
    """Sends progress records to the parent, at most a few a second, but never drops the last."""

    def __init__(self, sender: Connection) -> None:
        super().__init__()
        self._sender = sender
        self._last_sent_seconds = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        done = getattr(record, "done", None)
        if done is None:
            return
        total = getattr(record, "total", None)
        now = time.monotonic()
        if done != total and now - self._last_sent_seconds < _PROGRESS_INTERVAL_SECONDS:
            return
        self._last_sent_seconds = now
        self.send(Progress(done=done, total=total, unit=getattr(record, "unit", "")))

    def send(self, message: object) -> None:
        # The handler's lock: components log from several threads, and a connection takes one writer at a
        # time.
        with self.lock or threading.RLock():
            self._sender.send(message)
