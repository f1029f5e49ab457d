"""One task of a cluster on this machine that trains: `python -m models.cluster_task ARGUMENTS.json`.

Exits with `cluster.TEMPORARY_FAILURE` where another task was gone, so that the cluster is started again.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import tensorflow as tf

from models.cluster import PROGRESS, TEMPORARY_FAILURE
from models.trainer import run_task

_OTHERS_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


class _ToStandardOutput(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        told = {name: getattr(record, name) for name in ("done", "total", "unit") if hasattr(record, name)}
        sys.stdout.write(f"{PROGRESS}{json.dumps(told)}\n")
        sys.stdout.flush()


def main(arguments: Path) -> int:
    """Trains as the task that TF_CONFIG names, and gives the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    progress = logging.getLogger("headworks.progress")
    progress.setLevel(logging.INFO)
    progress.addHandler(_ToStandardOutput())
    try:
        run_task(SimpleNamespace(**json.loads(arguments.read_text(encoding="utf-8"))))
    except _OTHERS_GONE as error:
        logging.getLogger(__name__).warning("another task is gone: %s: %s", type(error).__name__, error)
        return TEMPORARY_FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
