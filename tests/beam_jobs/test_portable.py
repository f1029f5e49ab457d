"""The batch job on a portable runner: submitter, runner, pool and worker are processes that share only addresses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from beam_jobs import batch
from beam_jobs.batch import BatchJob

ROOT = Path(__file__).resolve().parents[2]
SERVICE = "apache_beam.runners.portability.local_job_service_main"
POOL = "apache_beam.runners.worker.worker_pool_main"
UP_S = 60

# A worker that cannot start is waited for without end.
pytestmark = pytest.mark.timeout(150)


@contextmanager
def started(module, option, log):
    """A process of Beam's that serves on a free port, from when it answers until the end of the block: its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The pool starts its workers as `python`, which have to be of this environment and to find our modules.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, option, str(port)],
            stdout=file,
            stderr=file,
            env=environment,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        _wait_for(port, process, log)
        yield f"127.0.0.1:{port}"
    finally:
        # Its group is what was started above, with any worker that it left behind, and nothing else.
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(port, process, log):
    end = time.monotonic() + UP_S
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"port {port} does not answer: {log.read_text()[-500:]}")


@pytest.fixture
def options(tmp_path):
    """Those that send a job to a job service, and its work to a pool of workers."""
    with (
        started(SERVICE, "--port", tmp_path / "service.log") as service,
        started(POOL, "--service_port", tmp_path / "pool.log") as pool,
    ):
        yield [
            "--runner=PortableRunner",
            f"--job_endpoint={service}",
            "--environment_type=EXTERNAL",
            f"--environment_config={pool}",
        ]


def written(job):
    """Predictions and dead letters of a job, in no order of files."""
    folder = Path(job.output) / job.name
    table = pq.read_table(folder / "predictions").drop_columns("predicted_at")
    letters = [
        json.loads(line)
        for file in (folder / "dead_letters").iterdir()
        for line in file.read_text().splitlines()
    ]
    return (
        sorted(table.to_pylist(), key=lambda row: row["day"]),
        sorted(letters, key=lambda letter: (letter["source"], int(letter["position"]))),
    )


def test_processes_that_share_only_addresses_write_what_one_process_writes(pushed, options, tmp_path):
    for part in range(2):
        rows = (f"d{part}-{n},{'damp' if n % 50 == 0 else n % 100},{n % 7},A\n" for n in range(500))
        (tmp_path / f"days{part}.csv").write_text("day,humidity,gusts,place\n" + "".join(rows))
    inputs = (str(tmp_path / "days*.csv"),)
    local, portable = (
        BatchJob(pushed, inputs, str(tmp_path / "out"), job_id=name, max_bad_fraction=0.5, batch_rows=128)
        for name in ("local", "portable")
    )
    here = batch.run(local)
    there = batch.run(portable, options)
    assert (there.rows_read, there.predicted, there.dead_letters) == (1000, 980, 20)
    assert (here.rows_read, here.predicted, here.dead_letters) == (1000, 980, 20)
    assert written(portable) == written(local)
    assert (tmp_path / "pool.log").read_text().count("Starting worker with command") == 1
