"""Pub/Sub: subscriptions that are acknowledged when the caller says so, and topics to write rows to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from beam_jobs.local_pubsub import Delivery
from beam_jobs.row_sinks import fitting
from beam_jobs.rows import DeadLetter, PredictionError

if TYPE_CHECKING:
    from google.cloud import pubsub_v1

_EMULATOR = "PUBSUB_EMULATOR_HOST"
_TIMEOUT_S = 60.0
_AT_ONCE = 1000
"""Messages in a request: its size is bounded."""
_ATTRIBUTE_BYTES = 1024
"""Pub/Sub's bound on the value of an attribute."""
_RAW_BYTES = 10_000_000 - (1 << 14)
"""Pub/Sub's bound on a message, less what its attributes and the request around it take."""


class PulledSubscription:
    """A subscription that is asked for messages; see `beam_jobs.local_pubsub.Subscription`."""

    def __init__(self, name: str) -> None:
        """Connects.

        Raises:
          PredictionError: if there is no such subscription.
        """
        self._name = name
        self._client = _subscriber()
        with _said_of(name):
            self._client.get_subscription(subscription=name, timeout=_TIMEOUT_S)

    def pull(self) -> Sequence[Delivery]:
        """Up to a thousand messages."""
        from google.api_core.exceptions import DeadlineExceeded

        try:
            with _said_of(self._name):
                response = self._client.pull(
                    subscription=self._name, max_messages=_AT_ONCE, timeout=_TIMEOUT_S
                )
        except PredictionError as error:
            if isinstance(error.__cause__, DeadlineExceeded):
                return ()
            raise
        return [_delivery(received) for received in response.received_messages]

    def renew(self, leases: Sequence[str], lease_s: int) -> None:
        """Renews leases from now on."""
        for some in _chunks(leases):
            with _said_of(self._name):
                self._client.modify_ack_deadline(
                    subscription=self._name, ack_ids=some, ack_deadline_seconds=lease_s, timeout=_TIMEOUT_S
                )

    def acknowledge(self, leases: Sequence[str]) -> None:
        """Acknowledges messages."""
        for some in _chunks(leases):
            with _said_of(self._name):
                self._client.acknowledge(subscription=self._name, ack_ids=some, timeout=_TIMEOUT_S)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


def _subscriber() -> pubsub_v1.SubscriberClient:
    import grpc
    from google.cloud import pubsub_v1
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    emulator = os.environ.get(_EMULATOR)
    if not emulator:
        return pubsub_v1.SubscriberClient()
    # Answers of Pub/Sub may be of any size to this client, but those of an emulator of 4 MB: less than one message.
    channel = grpc.insecure_channel(emulator, options=[("grpc.max_receive_message_length", -1)])
    return pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))


@contextmanager
def _said_of(name: str, *others: type[Exception]) -> Iterator[None]:
    from google.api_core.exceptions import GoogleAPIError

    try:
        yield
    except (GoogleAPIError, *others) as error:
        raise PredictionError(f"{name}: {error}") from error


def _chunks(leases: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(leases), _AT_ONCE):
        yield leases[start : start + _AT_ONCE]


def _delivery(received: Any) -> Delivery:
    message = received.message
    return Delivery(
        message.message_id, received.ack_id, message.data, dict(message.attributes), message.publish_time
    )


@dataclass(frozen=True)
class TopicSink:
    """Rows to a topic, as JSON objects.

    A message that is published twice is told by its attribute: read the topic with that as Beam's `id_label`.

    Attributes:
      topic: `projects/PROJECT/topics/TOPIC`.
      key: the column that names a row; becomes an attribute of the message.
    """

    topic: str
    key: str

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Returns when Pub/Sub has all rows."""
        _publish(
            self.topic,
            [
                (json.dumps(row, default=_as_text, allow_nan=False).encode(), {self.key: str(row[self.key])})
                for row in rows
            ],
        )


@dataclass(frozen=True)
class DeadLetterTopic:
    """Dead letters to a topic: the raw row is the message, ready to be published again; its attributes say why.

    Of a row that is longer than a message can be, the beginning is, and the reason says so.
    """

    topic: str

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when Pub/Sub has them all."""
        _publish(
            self.topic,
            [
                (
                    letter.raw,
                    {
                        "reason": _cut(letter.reason),
                        "position": _cut(letter.position),
                        "source": _cut(letter.source),
                    },
                )
                for letter in (fitting(letter, _RAW_BYTES) for letter in letters)
            ],
        )


def _publish(topic: str, messages: Sequence[tuple[bytes, dict[str, str]]]) -> None:
    from google.cloud.pubsub_v1.publisher.exceptions import MessageTooLargeError

    with _said_of(topic, MessageTooLargeError):
        futures = [_publisher().publish(topic, data, **attributes) for data, attributes in messages]
        for future in futures:
            future.result()


@cache
def _publisher() -> pubsub_v1.PublisherClient:
    """One for the process: it has connections and threads of its own."""
    from google.cloud import pubsub_v1

    return pubsub_v1.PublisherClient()


def _as_text(value: Any) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} {value!r} is no value of JSON")


def _cut(text: str) -> str:
    return text.encode("utf-8", "replace")[:_ATTRIBUTE_BYTES].decode("utf-8", "ignore")
