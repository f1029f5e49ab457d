"""The version that answers now: a watch on the serving folder that swaps models between batches.

Beam can hand a new model to RunInference through a side input. Its local streaming runner cannot: it waits for the end
of a side input's window before it shows the first value, and does not run the splittable reads that watch for files.
And a model that fails to load there fails the bundle, again and again. So each worker process watches for itself: a
thread loads and checks what is new while the old version goes on answering, and then replaces it. A batch takes the
version once, so it is scored by one; the workers of a job may swap some seconds apart.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from beam_jobs.pushed import versions
from beam_jobs.rows import PredictionError

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 600.0
T = TypeVar("T")
Files = frozenset[tuple[str, int, float]]
"""Path, size and time of change of each file of a version."""


@dataclass(frozen=True)
class Failure:
    """A version that could not be loaded.

    Attributes:
      files: as they were then.
      pause_s: until it is tried again; infinity: until its files change.
      at: by the clock.
      reason: what was wrong with it.
    """

    files: Files
    pause_s: float
    at: float
    reason: str


class LiveModel(Generic[T]):
    """The newest version of a serving folder that passes its load check.

    A version that is found to be no good itself (a `PredictionError` without a cause: files that are not what was
    pushed, answers other than in training) is refused: not tried again until one of its files changes, as they do
    while it is still copied. Any other failure, of a store or for want of memory, may pass: the version is tried again
    at the next look, then after twice as long, up to ten minutes. Where the newest version is taken away, the newest
    that is left takes over; where all are gone, the last one goes on answering from memory.
    """

    def __init__(
        self,
        serving: str,
        load: Callable[[str], T],
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Loads the newest version that can be used, and watches for others.

        Args:
          serving: the serving folder.
          load: makes what answers from a version's folder, or raises.
          every_s: seconds between two looks at the folder.
          clock: in seconds.

        Raises:
          PredictionError: if no version there can be used.
        """
        self._serving = serving.rstrip("/")
        self._load = load
        self._every_s = every_s
        self._clock = clock
        self._failed: dict[int, Failure] = {}
        self._stop = threading.Event()
        self._current: tuple[int, T] | None = None
        self.look()
        if not self._is_ready():
            raise PredictionError(self._why_not())
        threading.Thread(target=self._watch, name=f"watch {serving}", daemon=True).start()

    def current(self) -> T:
        """What answers now."""
        assert self._current is not None
        return self._current[1]

    def _is_ready(self) -> bool:
        return self._current is not None

    def _why_not(self) -> str:
        if not self._failed:
            return (
                f"{self._serving}: there is no pushed version here; name the serving folder of a pipeline that has "
                "pushed one"
            )
        reasons = "; ".join(
            f"version {version}: {failure.reason}" for version, failure in self._failed.items()
        )
        return f"{self._serving}: no version here can be used: {reasons}; push one that can"

    @property
    def refused(self) -> tuple[int, ...]:
        """Versions that are there and no good."""
        return tuple(version for version, failure in self._failed.items() if failure.pause_s == math.inf)

    def close(self) -> None:
        """Ends the watch."""
        self._stop.set()

    def look(self) -> None:
        """Looks at the folder once: the newest version that passes takes over."""
        offered = versions(self._serving)
        self._failed = {version: failure for version, failure in self._failed.items() if version in offered}
        for version in reversed(offered):
            if self._current is not None and self._current[0] == version:
                return
            if self._take_over(version):
                return

    def _take_over(self, version: int) -> bool:
        folder = f"{self._serving}/{version}"
        # Before it is loaded: what is copied meanwhile has it tried again.
        files = _files(folder)
        before = self._failed.get(version)
        if before and before.files != files:
            before = None
        if before and self._clock() < before.at + before.pause_s:
            return False
        try:
            loaded = self._load(folder)
        except Exception as error:  # noqa: BLE001 (whatever it is, the version that answers is none the worse for it)
            pause_s = self._pause_after(version, error, before)
            self._failed[version] = Failure(files, pause_s, self._clock(), str(error) or type(error).__name__)
            return False
        _LOG.info("version %d takes over; %s until now", version, self._answering())
        self._failed.pop(version, None)
        self._current = (version, loaded)
        return True

    def _pause_after(self, version: int, error: Exception, before: Failure | None) -> float:
        """For how long a version that failed is left alone; logs it."""
        if isinstance(error, PredictionError) and error.__cause__ is None:
            _LOG.error("version %d is refused; %s", version, self._answering(), exc_info=error)
            return math.inf
        pause_s = min(before.pause_s * 2, _LONGEST_PAUSE_S) if before else self._every_s
        _LOG.error(
            "version %d cannot be loaded now and is tried again in %g s; %s",
            *(version, pause_s, self._answering()),
            exc_info=error,
        )
        return pause_s

    def _answering(self) -> str:
        return "no version answers" if self._current is None else f"version {self._current[0]} answers"

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.look()
            except Exception:  # noqa: BLE001 (a folder that cannot be listed now may be at the next look)
                _LOG.exception("%s: cannot be watched", self._serving)


def _files(folder: str) -> Files:
    from apache_beam.io.filesystems import FileSystems

    [found] = FileSystems.match([f"{folder}/**"])
    return frozenset(
        (file.path, file.size_in_bytes, float(file.last_updated_in_seconds)) for file in found.metadata_list
    )


_SHARED: dict[Hashable, LiveModel[Any]] = {}
_LOCK = threading.Lock()


def shared(key: Hashable, make: Callable[[], LiveModel[T]]) -> LiveModel[T]:
    """The live model of this process by that key; made where there is none, once for all threads."""
    with _LOCK:
        if key not in _SHARED:
            _SHARED[key] = make()
        return _SHARED[key]
