"""Google's Pub/Sub emulator, and messages to and from it."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

PROJECT = "local-project"
_UP_S = 90


@dataclass(frozen=True)
class Emulator:
    """A running emulator: topics and subscriptions are made as they are named."""

    host: str

    @property
    def publisher(self):
        from google.cloud import pubsub_v1

        return pubsub_v1.PublisherClient()

    def topic(self, name):
        """A new topic with one subscription: their full names."""
        from google.cloud import pubsub_v1

        topic = f"projects/{PROJECT}/topics/{name}"
        subscription = f"projects/{PROJECT}/subscriptions/{name}"
        self.publisher.create_topic(name=topic)
        with pubsub_v1.SubscriberClient() as subscriber:
            subscriber.create_subscription(name=subscription, topic=topic, ack_deadline_seconds=10)
        return topic, subscription


class Mailbox:
    """All messages of a subscription, gathered in a thread until the end."""

    def __init__(self, subscription):
        from cloud.pubsub import _subscriber

        self._lock = threading.Lock()
        self._messages = {}
        self._client = _subscriber()  # Takes messages of more than gRPC's 4 MB, as the job's does.
        self._future = self._client.subscribe(subscription, self._take)

    def _take(self, message):
        with self._lock:
            self._messages[message.message_id] = (message.data, dict(message.attributes))
        message.ack()

    @property
    def messages(self):
        with self._lock:
            return list(self._messages.values())

    def close(self):
        self._future.cancel()
        self._client.close()


@contextmanager
def running():
    """Starts the emulator on a free port; skips where Google's Cloud CLI or Java cannot be had."""
    for program in ("gcloud", "java"):
        if not shutil.which(program):
            pytest.skip(f"NOT TESTED: {program} is not here, which the Pub/Sub emulator needs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "gcloud",
        "beta",
        "emulators",
        "pubsub",
        "start",
        f"--host-port={host}",
        f"--project={PROJECT}",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    lines: list[str] = []
    up = threading.Event()
    threading.Thread(target=_read, args=(process.stdout, lines, up), daemon=True).start()
    before = os.environ.get("PUBSUB_EMULATOR_HOST")
    os.environ["PUBSUB_EMULATOR_HOST"] = host
    try:
        if not up.wait(_UP_S) or process.poll() is not None:
            pytest.skip(f"NOT TESTED: the Pub/Sub emulator does not start: {''.join(lines[-5:])}")
        yield Emulator(host)
    finally:
        if before is None:
            del os.environ["PUBSUB_EMULATOR_HOST"]
        else:
            os.environ["PUBSUB_EMULATOR_HOST"] = before
        # The emulator is a grandchild: of the group that was started above, and of no other.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read(output, lines, up):
    for line in output:
        lines.append(line)
        if "Server started" in line:
            up.set()
    up.set()


def until(true, seconds=60):
    """Waits until it is true.

    Raises:
      TimeoutError: if it is not in that time.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {seconds} s")
        time.sleep(0.02)
