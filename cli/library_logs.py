"""What TensorFlow, Beam and their native parts say goes to a file; the terminal is for what the command says."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Sends logging and whatever native code writes to file descriptor 2 to the end of a file, in this process.

    Raises:
      PredictionError: if the file cannot be written.
    """
    log = _opened(path)
    terminal, shown = os.dup(2), sys.stderr
    sys.stderr.flush()
    with log as file, os.fdopen(terminal, "w", buffering=1) as stderr:
        handler = logging.StreamHandler(file_text := os.fdopen(os.dup(file.fileno()), "w", buffering=1))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        os.dup2(file.fileno(), 2)
        sys.stderr = stderr
        try:
            yield
        finally:
            sys.stderr = shown
            os.dup2(terminal, 2)
            logging.getLogger().removeHandler(handler)
            file_text.close()


@contextmanager
def dropped() -> Iterator[None]:
    """Drops what libraries log; for work whose errors are all that matters."""
    with tempfile.TemporaryDirectory(prefix="headworks-log-") as folder, to_file(Path(folder, "log")):
        yield


def _opened(path: Path) -> BinaryIO:
    from beam_jobs.rows import PredictionError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise PredictionError(f"{path}: the log cannot be written: {error.strerror or error}") from error
