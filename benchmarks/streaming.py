"""How long a message takes through `headworks stream`: Pub/Sub emulator, job, Pub/Sub emulator.

    python -m benchmarks.streaming SERVING --rate 200 --seconds 30 < rows.jsonl

Rows of standard input, a JSON object each, are published over and over at a steady rate. The latency of a message is
from before it is published until its prediction is received, both by this process; the first seconds do not count.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.cloud import pubsub_v1

from tests.beam_jobs.pubsub_emulator import running, until

ROOT = Path(__file__).resolve().parents[1]
_WARM_S = 5.0


class Clock:
    """When each message was sent, and when its prediction came."""

    def __init__(self) -> None:
        self.sent: dict[str, float] = {}
        self.received: dict[str, float] = {}
        self._lock = threading.Lock()

    def receive(self, message: Any) -> None:
        """Notes a prediction."""
        with self._lock:
            self.received.setdefault(message.attributes["prediction_id"], time.monotonic())
        message.ack()


def main() -> None:
    """Runs the job and reports latencies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("serving")
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--batch-age", type=float, default=0.05)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in sys.stdin]
    with running() as emulator, tempfile.TemporaryDirectory() as folder:
        (source, source_subscription), (target, target_subscription) = map(
            emulator.topic, ("source", "target")
        )
        clock = Clock()
        subscriber = pubsub_v1.SubscriberClient()
        receiving = subscriber.subscribe(target_subscription, clock.receive)
        job = _job(arguments, source_subscription, target, Path(folder))
        try:
            _steady(emulator.publisher, source, rows, 20, 1.0, clock, "warm-up")
            until(lambda: len(clock.received) == len(clock.sent), 120)
            begun = time.monotonic()
            _steady(emulator.publisher, source, rows, arguments.rate, arguments.seconds, clock, "measured")
            until(lambda: len(clock.received) == len(clock.sent), 60)
            _report(clock, begun, _peak_mib(job.pid))
        finally:
            job.send_signal(signal.SIGTERM)
            job.wait()
            receiving.cancel()
            subscriber.close()


def _job(
    arguments: argparse.Namespace, subscription: str, target: str, folder: Path
) -> subprocess.Popen[bytes]:
    command = "from cli.stream import stream; stream()"
    return subprocess.Popen(
        [
            *(sys.executable, "-c", command, arguments.serving, "--from", subscription, "--to", target),
            *("--dead-letters", f"sqlite:///{folder}/dead.db", "--statistics", f"{folder}/windows.jsonl"),
            *("--window", "10", "--batch-age", str(arguments.batch_age)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def _steady(
    publisher: Any, topic: str, rows: Sequence[Any], rate: float, seconds: float, clock: Clock, name: str
) -> None:
    start = time.monotonic()
    for number, row in zip(range(round(rate * seconds)), itertools.cycle(rows), strict=False):
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        message_id = f"{name}-{number}"
        clock.sent[message_id] = time.monotonic()
        publisher.publish(topic, json.dumps(row).encode(), id=message_id)


def _report(clock: Clock, begun: float, peak_mib: float) -> None:
    counted = [name for name, sent in clock.sent.items() if sent > begun + _WARM_S]
    latencies = [(clock.received[name] - clock.sent[name]) * 1000 for name in counted]
    per_cent = statistics.quantiles(latencies, n=100)
    print(
        f"{len(latencies)} messages: p50 {per_cent[49]:.0f} ms, p99 {per_cent[98]:.0f} ms, "
        f"max {max(latencies):.0f} ms; {peak_mib:.0f} MiB at the peak"
    )


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


if __name__ == "__main__":
    main()
