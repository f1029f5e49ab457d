"""bqemulator as a process of its own, on ports of the loopback that are free.

It is started without DuckDB's spatial extension, which it would download and only GEOGRAPHY needs.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from cloud.bigquery import Connection

PROJECT = "local-project"

_START = """
import sys
from bqemulator.storage.engine import DuckDBEngine
DuckDBEngine._load_spatial = lambda self: None
from bqemulator.cli import main
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Emulator:
    """A running emulator; `gs://BUCKET/…` is `buckets/BUCKET/…` to it."""

    connection: Connection
    buckets: Path


@contextmanager
def running(folder: Path) -> Iterator[Emulator]:
    arguments = [
        "start",
        "--rest-port",
        "0",
        "--grpc-port",
        "0",
        "--log-level",
        "info",
        "--log-format",
        "json",
    ]
    environment = {
        **os.environ,
        "BQEMU_ENABLE_FORMAT_EXTENSIONS": "false",
        "BQEMU_GCS_LOCAL_ROOT": str(folder),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output = cast(TextIO, process.stdout)
        ports = _ports(output)
        # A full pipe would stop it.
        threading.Thread(target=output.read, daemon=True).start()
        yield Emulator(
            Connection(
                PROJECT,
                endpoint=f"http://127.0.0.1:{ports['rest.listen']}",
                storage_endpoint=f"127.0.0.1:{ports['grpc.listen']}",
                patience_s=20,
            ),
            folder,
        )
    finally:
        process.terminate()
        process.wait(timeout=20)


def _ports(output: TextIO) -> dict[str, int]:
    found: dict[str, int] = {}
    said = []
    for line in output:
        said.append(line)
        if line.startswith("{") and (event := json.loads(line))["event"] in {"rest.listen", "grpc.listen"}:
            found[event["event"]] = event["port"]
        if len(found) == 2:
            return found
    raise RuntimeError("bqemulator did not start:\n" + "".join(said[-20:]))
