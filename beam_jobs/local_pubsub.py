"""Pub/Sub on Beam's local streaming runner, acknowledged after the work instead of before it.

Beam's local runner acknowledges messages as soon as it has pulled them, ten at a time, and claims that all events up to
now have been seen: a killed job has lost what it had pulled, and event-time windows close too early. Dataflow does
neither. This runner is Beam's with another reader of Pub/Sub. A message is acknowledged when every step that makes
something lasting of it has called `confirm`; until then its lease is kept up, and a killed job gets it again.

Of Beam it uses `BundleBasedDirectRunner` and its table of evaluators; both are internal to Beam.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import Pipeline
from apache_beam.pvalue import PBegin
from apache_beam.runners.direct import transform_evaluator
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner, _DirectReadFromPubSub
from apache_beam.runners.direct.util import TransformResult
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp

from beam_jobs.messages import event_time
from beam_jobs.rows import PredictionError

_REMEMBERED_S = 600.0
"""For how long a message that was acknowledged is known again, as on Dataflow."""


@dataclass(frozen=True)
class Delivery:
    """A message as it was delivered.

    Attributes:
      id: of the message.
      lease: of this delivery; another one when the message is delivered again.
      data: what was published.
      attributes: what was published beside it.
      published: when.
    """

    id: str
    lease: str
    data: bytes
    attributes: Mapping[str, str]
    published: datetime


class Subscription(Protocol):
    """A subscription of Pub/Sub; all calls may come from several threads at a time."""

    def pull(self) -> Sequence[Delivery]:
        """What there is; waits for it, and gives nothing after a while."""

    def renew(self, leases: Sequence[str], lease_s: int) -> None:
        """Keeps deliveries from being made again for so many seconds."""

    def acknowledge(self, leases: Sequence[str]) -> None:
        """Says that the messages are dealt with."""

    def close(self) -> None:
        """Ends a pull that waits; what was not acknowledged is delivered again some time."""


@dataclass(frozen=True)
class Reading:
    """How messages are taken from a subscription.

    Attributes:
      batch_rows: taken at once, at most.
      batch_age_s: for how long after the first of a batch further ones are waited for.
      time_attribute: the attribute with a message's event time; None: the time of publishing counts.
      delay_s: how long after its event a message may come and still be in time for its window.
      lease_s: how long after a kill Pub/Sub delivers again what was under way; at least 10.
      steps: names under which the steps of the job confirm messages.
    """

    batch_rows: int = 256
    batch_age_s: float = 0.05
    time_attribute: str | None = None
    delay_s: float = 2.0
    lease_s: int = 10
    steps: tuple[str, ...] = ("predictions",)


class Inbox:
    """Messages of one subscription: waiting, in hand, and acknowledged of late.

    One thread pulls, with a request that waits: Pub/Sub may hand messages to a request that has been given up, and then
    they are lost for as long as a lease. (The client library's streaming pull is not used because the emulator hands
    messages to the streams of killed clients for ever.) Another thread renews the leases of all that is in hand. A
    message that is delivered again meanwhile only gets its new lease; one that was acknowledged of late is acknowledged
    again.
    """

    _IDLE_S = 0.25
    _WAITING_BATCHES = 8

    def __init__(
        self, subscription: Subscription, reading: Reading, clock: Callable[[], float] = time.time
    ) -> None:
        self._subscription = subscription
        self._reading = reading
        self._clock = clock
        self._opened = clock()
        self._watermark = 0.0
        self._waiting: queue.Queue[Delivery] = queue.Queue(reading.batch_rows * self._WAITING_BATCHES)
        self._lock = threading.Lock()
        self._leases: dict[str, str] = {}
        self._missing_steps: dict[str, set[str]] = {}
        self._done: OrderedDict[str, float] = OrderedDict()
        self._closed = threading.Event()
        self._error: Exception | None = None

    def open(self) -> None:
        """Begins to pull."""
        for work in (self._pull, self._renew):
            threading.Thread(target=self._until_closed, args=(work,), daemon=True).start()

    def close(self) -> None:
        """Ends it; what is in hand is delivered again when its leases have run out."""
        self._closed.set()
        self._subscription.close()

    def _until_closed(self, work: Callable[[], None]) -> None:
        try:
            while not self._closed.is_set():
                work()
        except Exception as error:  # noqa: BLE001 (raised by `take`, in the thread that runs the job)
            if not self._closed.is_set():
                self._error = error

    def _pull(self) -> None:
        delivered = self._subscription.pull()
        if delivered:
            self._subscription.renew([delivery.lease for delivery in delivered], self._reading.lease_s)
        self.deliver(delivered)

    def _renew(self) -> None:
        if self._closed.wait(self._reading.lease_s / 3):
            return
        with self._lock:
            leases = list(self._leases.values())
        if leases:
            self._subscription.renew(leases, self._reading.lease_s)

    def deliver(self, delivered: Sequence[Delivery]) -> None:
        """Takes messages in; waits where there are enough. Their leases are renewed from the beginning."""
        with self._lock:
            again = [delivery.lease for delivery in delivered if delivery.id in self._done]
            new = [delivery for delivery in delivered if self._is_new(delivery)]
        if again:
            self._subscription.acknowledge(again)
        for delivery in new:
            while not self._put(delivery) and not self._closed.is_set():
                continue

    def _is_new(self, delivery: Delivery) -> bool:
        if delivery.id in self._done:
            return False
        is_new = delivery.id not in self._leases
        self._leases[delivery.id] = delivery.lease
        if is_new:
            self._missing_steps[delivery.id] = set(self._reading.steps)
        return is_new

    def _put(self, delivery: Delivery) -> bool:
        try:
            self._waiting.put(delivery, timeout=self._IDLE_S)
        except queue.Full:
            return False
        return True

    def take(self) -> list[tuple[datetime, Delivery]]:
        """The next batch with the event times; empty if nothing comes for a moment.

        Raises:
          PredictionError: if the subscription gives no more messages.
        """
        if self._error:
            raise PredictionError(f"the subscription gives no more messages: {self._error}") from self._error
        taken = list(self._next())
        times = [_event_time(delivery, self._reading.time_attribute) for delivery in taken]
        self._advance(times)
        return list(zip(times, taken, strict=True))

    def _next(self) -> Iterator[Delivery]:
        wait_s = self._IDLE_S
        until = None
        for _ in range(self._reading.batch_rows):
            try:
                yield self._waiting.get(timeout=max(0.0, wait_s))
            except queue.Empty:
                return
            until = until or time.monotonic() + self._reading.batch_age_s
            wait_s = until - time.monotonic()

    @property
    def watermark(self) -> float:
        """The time, in seconds since 1970, before which no further events are expected."""
        return self._watermark

    def _advance(self, times: Sequence[datetime]) -> None:
        now = self._clock()
        in_time = [when.timestamp() for when in times if when.timestamp() > self._watermark]
        if in_time:
            # What waits is about as old as what was just taken; the oldest of it errs on the side of waiting.
            candidate = min(in_time)
        elif times or now < self._opened + self._reading.lease_s + self._reading.delay_s:
            return  # What a killed job had in hand comes only when its leases have run out.
        else:
            candidate = now
        self._watermark = max(self._watermark, min(candidate, now) - self._reading.delay_s)

    def confirm(self, ids: Iterable[str], step: str) -> None:
        """Notes that a step is done with messages; those that all steps are done with are acknowledged."""
        with self._lock:
            done = [name for name in ids if self._is_last(name, step)]
            leases = [self._leases.pop(name) for name in done]
            now = time.monotonic()
            self._done.update((name, now) for name in done)
            while self._done and next(iter(self._done.values())) < now - _REMEMBERED_S:
                self._done.popitem(last=False)
        if leases:
            self._subscription.acknowledge(leases)

    def _is_last(self, name: str, step: str) -> bool:
        missing = self._missing_steps.get(name)
        if missing is None:
            return False
        missing.discard(step)
        if not missing:
            del self._missing_steps[name]
        return not missing

    @property
    def unacknowledged(self) -> int:
        """Messages that were delivered and are not acknowledged yet."""
        return len(self._leases)


_INBOXES: dict[str, Inbox] = {}
"""By subscription: steps are copied from bundle to bundle and find theirs by its name."""


def confirm(subscription: str, ids: Iterable[str], step: str) -> None:
    """Notes that a step of the job that reads a subscription is done with messages."""
    _INBOXES[subscription].confirm(ids, step)


class LocalPubSubRunner(BundleBasedDirectRunner):
    """Beam's local streaming runner, with subscriptions that are acknowledged by `confirm`."""

    def __init__(self, subscribe: Callable[[str], Subscription], reading: Reading) -> None:
        super().__init__()
        self._subscribe = subscribe
        self._reading = reading
        self._opened: list[str] = []

    def run_pipeline(self, pipeline: Pipeline, options: PipelineOptions) -> PipelineResult:
        """Starts the pipeline in threads and returns."""
        with _evaluated_by(self._evaluator()):
            return super().run_pipeline(pipeline, options)

    def close(self) -> None:
        """Ends all deliveries."""
        while self._opened:
            _INBOXES.pop(self._opened.pop()).close()

    def _evaluator(self) -> type:
        class Evaluator(_AcknowledgedLater):
            runner = self

        return Evaluator

    def inbox(self, subscription: str) -> Inbox:
        """The inbox of a subscription, which is opened if it is not."""
        if subscription not in self._opened:
            if subscription in _INBOXES:
                raise PredictionError(f"{subscription}: another job of this process reads it")
            inbox = Inbox(self._subscribe(subscription), self._reading)
            inbox.open()
            _INBOXES[subscription] = inbox
            self._opened.append(subscription)
        return _INBOXES[subscription]


class _AcknowledgedLater(transform_evaluator._TransformEvaluator):
    """Gives one batch of a subscription a bundle; Beam asks for the next when all steps are through with it."""

    runner: LocalPubSubRunner

    def process_element(self, element: Any) -> None:
        """The bundle that a root is started with is empty."""

    def finish_bundle(self) -> TransformResult:
        source = self._applied_ptransform.transform._source
        if not source.full_subscription:
            raise PredictionError(f"{source.full_topic}: a topic; name a subscription of it to read from")
        inbox = self.runner.inbox(source.full_subscription)
        taken = inbox.take()
        [output] = self._outputs
        bundle = self._evaluation_context.create_bundle(output)
        for when, delivery in taken:
            time_of_it = Timestamp.of(when.timestamp())
            bundle.output(GlobalWindows.windowed_value(_as_beam_has_it(delivery), timestamp=time_of_it))
        begin = PBegin(self._applied_ptransform.transform.pipeline)
        again = self._evaluation_context.create_bundle(begin)
        hold = {None: Timestamp.of(inbox.watermark)}
        return TransformResult(self, [bundle] if taken else [], [again], None, hold)


def _as_beam_has_it(delivery: Delivery) -> PubsubMessage:
    return PubsubMessage(delivery.data, dict(delivery.attributes), delivery.id, delivery.published)


def _event_time(delivery: Delivery, attribute: str | None) -> datetime:
    """A time that cannot be read is found out where messages are read; until then the time of publishing does."""
    try:
        return event_time(delivery.attributes, attribute, delivery.published)
    except ValueError:
        return delivery.published.astimezone(UTC)


@contextmanager
def _evaluated_by(evaluator: type) -> Iterator[None]:
    """Has Beam evaluate reads from Pub/Sub otherwise, for the pipelines that are started meanwhile."""
    registry = transform_evaluator.TransformEvaluatorRegistry
    before = registry._test_evaluators_overrides
    registry._test_evaluators_overrides = {**before, _DirectReadFromPubSub: evaluator}
    try:
        yield
    finally:
        registry._test_evaluators_overrides = before
