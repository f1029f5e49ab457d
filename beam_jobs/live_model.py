"""The version that answers now: a watch on the serving folder that swaps models between batches.

Beam can hand a new model to RunInference through a side input. Its local streaming runner cannot: it waits for the end
of a side input's window before it shows the first value, and does not run the splittable reads that watch for files.
And a model that fails to load there fails the bundle, again and again. So each worker process watches for itself: a
thread loads and checks what is new while the old version goes on answering, and then replaces it. A batch takes the
version once, so it is scored by one; the workers of a job may swap some seconds apart.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from beam_jobs.pushed import MANIFEST, versions
from beam_jobs.rows import PredictionError

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class LiveModel(Generic[T]):
    """The newest version of a serving folder that passes its load check.

    A version that is refused is not tried again until its manifest changes. Where the newest version is taken away, the
    newest that is left takes over; where all are gone, the last one goes on answering from memory.
    """

    def __init__(self, serving: str, load: Callable[[str], T], every_s: float) -> None:
        """Loads the newest version that can be used, and watches for others.

        Args:
          serving: the serving folder.
          load: makes what answers from a version's folder, or raises.
          every_s: seconds between two looks at the folder.

        Raises:
          PredictionError: if no version there can be used.
        """
        self._serving = serving.rstrip("/")
        self._load = load
        self._refused: dict[int, float] = {}
        self._stop = threading.Event()
        self._current: tuple[int, T] | None = None
        self.look()
        if not self._is_ready():
            raise PredictionError(
                f"{serving}: no version here can be used ({len(self._refused)} refused; the log says why); push one"
            )
        threading.Thread(target=self._watch, args=(every_s,), name=f"watch {serving}", daemon=True).start()

    def current(self) -> T:
        """What answers now."""
        assert self._current is not None
        return self._current[1]

    def _is_ready(self) -> bool:
        return self._current is not None

    @property
    def refused(self) -> tuple[int, ...]:
        """Versions that are there and failed their load check."""
        return tuple(self._refused)

    def close(self) -> None:
        """Ends the watch."""
        self._stop.set()

    def look(self) -> None:
        """Looks at the folder once: the newest version that passes takes over."""
        offered = versions(self._serving)
        self._refused = {version: when for version, when in self._refused.items() if version in offered}
        for version in reversed(offered):
            if self._current is not None and self._current[0] == version:
                return
            if self._take_over(version):
                return

    def _take_over(self, version: int) -> bool:
        folder = f"{self._serving}/{version}"
        try:
            changed = _changed(folder)
            if self._refused.get(version) == changed:
                return False
        except OSError:
            return False  # It has just been taken away.
        try:
            loaded = self._load(folder)
        except Exception:  # noqa: BLE001 (whatever it does, the version that answers is none the worse for it)
            _LOG.exception("version %d is refused; %s", version, self._answering())
            self._refused[version] = changed
            return False
        _LOG.info("version %d takes over; %s until now", version, self._answering())
        self._refused.pop(version, None)
        self._current = (version, loaded)
        return True

    def _answering(self) -> str:
        return "no version answers" if self._current is None else f"version {self._current[0]} answers"

    def _watch(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            try:
                self.look()
            except Exception:  # noqa: BLE001 (a folder that cannot be listed now may be at the next look)
                _LOG.exception("%s: cannot be watched", self._serving)


def _changed(folder: str) -> float:
    from apache_beam.io.filesystems import FileSystems

    return float(FileSystems.last_updated(f"{folder}/{MANIFEST}"))


_SHARED: dict[Hashable, LiveModel[Any]] = {}
_LOCK = threading.Lock()


def shared(key: Hashable, make: Callable[[], LiveModel[T]]) -> LiveModel[T]:
    """The live model of this process by that key; made where there is none, once for all threads."""
    with _LOCK:
        if key not in _SHARED:
            _SHARED[key] = make()
        return _SHARED[key]
