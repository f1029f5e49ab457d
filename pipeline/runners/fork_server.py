"""The process that has TFX loaded and forks a fresh child for every node.

Loading TFX costs seconds of CPU; forking a process that has it loaded costs milliseconds. The parent never
loads it. Each child starts from the same clean state, gives its memory back when it ends, and can be killed
alone.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path

_PRELOADED = "pipeline.runners.preload"

# Both are read by the libraries when they load, which is why they are set before the fork server starts.
_REQUIRED_ENVIRONMENT: Mapping[str, str] = {"TF_USE_LEGACY_KERAS": "1"}
_DEFAULT_ENVIRONMENT: Mapping[str, str] = {"TF_CPP_MIN_LOG_LEVEL": "2", "GRPC_VERBOSITY": "ERROR"}


def start(extra_modules: Sequence[str] = ()) -> None:
    """Start loading TFX in the background and return at once; a no-op when it is already running.

    `extra_modules` are loaded too (dotted names; they must import without side effects). Only the first call
    in a process decides what is loaded.
    """
    context = fork_context()
    context.set_forkserver_preload([_PRELOADED, *extra_modules])
    with _module_search_path():
        set_environment()
        forkserver.ensure_running()


def set_environment() -> None:
    """Set what the libraries read when they are loaded: which Keras, and how much they say."""
    os.environ.update({**_DEFAULT_ENVIRONMENT, **os.environ, **_REQUIRED_ENVIRONMENT})


def fork_context() -> ForkServerContext:
    """Return the multiprocessing context whose processes are forked by the fork server."""
    return get_context("forkserver")


@contextmanager
def _module_search_path() -> Iterator[None]:
    """Let the fork server find our packages wherever the command was started.

    CPython 3.11 hands the parent's `sys.path` to the children but not to the fork server, which then silently
    skips a preload it cannot import and every node pays for loading TFX itself.
    """
    before = os.environ.get("PYTHONPATH")
    house = str(Path(__file__).resolve().parents[2])
    os.environ["PYTHONPATH"] = house if not before else os.pathsep.join((house, before))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
