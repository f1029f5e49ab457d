"""A subscription in the process of a test."""

import json
import threading
from datetime import UTC, datetime

from beam_jobs.local_pubsub import Delivery

NAME = "projects/local-project/subscriptions/events"


class Subscription:
    """Delivers some rows, once, and what is published later."""

    def __init__(self, count=40):
        self.waiting = []
        self._published = 0
        self.publish([{"day": f"d{n}", "humidity": n} for n in range(count)])
        self.acknowledged = []
        self._closed = threading.Event()

    def publish(self, rows):
        for row in rows:
            number = self._published = self._published + 1
            data = json.dumps(row).encode()
            self.waiting.append(Delivery(f"m{number}", f"lease {number}", data, {}, datetime.now(UTC)))

    def pull(self):
        delivered, self.waiting = self.waiting, []
        if not delivered:
            self._closed.wait(0.05)
        return delivered

    def renew(self, leases, lease_s):
        pass

    def acknowledge(self, leases):
        self.acknowledged += leases

    def close(self):
        self._closed.set()
