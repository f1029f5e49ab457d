"""Pub/Sub messages as rows: what they say, when it happened, and by which name their prediction goes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from beam_jobs.formats.json_lines import parse_object
from beam_jobs.formats.text import ReadSettings
from beam_jobs.rows import Batch, DeadLetter

Form = Literal["json", "example"]
LONGEST_BYTES = ReadSettings().max_row_bytes
"""As rows of files. What is made of such a message is taken by every sink, however often a character is escaped."""

_SHOWN = 60


@dataclass(frozen=True)
class Message:
    """A message.

    Attributes:
      id: Pub/Sub's, the same when the message is delivered again.
      data: what was published.
      attributes: what was published beside it.
      published: when, in UTC.
    """

    id: str
    data: bytes
    attributes: Mapping[str, str]
    published: datetime


@dataclass(frozen=True)
class Reader:
    """Reads messages as rows.

    Attributes:
      source: the subscription.
      form: `json`, an object of raw columns, or `example`, a serialized tf.Example.
      id_attribute: the attribute that names a message's prediction, where it has it.
      time_attribute: the attribute with its event time; None: the time of publishing.
    """

    source: str
    form: Form = "json"
    id_attribute: str = "id"
    time_attribute: str | None = None

    def read(self, messages: Sequence[Message]) -> tuple[list[Event], list[DeadLetter]]:
        """The messages as events, and those that cannot be read with their reasons."""
        events, dead = [], []
        for message in messages:
            try:
                when = event_time(message.attributes, self.time_attribute, message.published)
                values = self._values(message.data)
            except ValueError as error:
                dead.append(DeadLetter(self.source, message.id, str(error), message.data))
            else:
                events.append(Event(message, when, values))
        return events, dead

    def _values(self, data: bytes) -> Mapping[str, Any]:
        if len(data) > LONGEST_BYTES:
            raise ValueError(f"the message is {len(data)} bytes long, more than {LONGEST_BYTES}")
        return _PARSERS[self.form](data)

    def batch(self, events: Sequence[Event]) -> Batch:
        """Events as rows; positions are the ids of their messages."""
        names = dict.fromkeys(name for event in events for name in event.values)
        return Batch(
            source=self.source,
            positions=[event.message.id for event in events],
            columns={name: [event.values.get(name) for event in events] for name in names},
            raw=[event.message.data for event in events],
        )

    def prediction_id(self, event: Event, key: Sequence[str]) -> str:
        """The name of an event's prediction: the same whenever the event is delivered, or published, again.

        It is the message's attribute, else made of the key columns, else of the payload. A row whose columns change
        under the same key is to the sinks the same prediction: give such messages the attribute.
        """
        if given := event.message.attributes.get(self.id_attribute):
            return given
        if key:
            named = json.dumps([event.values.get(name) for name in key], default=str)
            return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return hashlib.sha256(event.message.data).hexdigest()[:32]


@dataclass(frozen=True)
class Event:
    """A message that could be read: when it happened, and its raw columns."""

    message: Message
    time: datetime
    values: Mapping[str, Any]


def event_time(attributes: Mapping[str, str], attribute: str | None, published: datetime) -> datetime:
    """When what a message tells of happened, in UTC.

    The attribute holds milliseconds since 1970 or RFC 3339. A message without it happened when it was published.

    Raises:
      ValueError: if the attribute holds anything else.
    """
    text = attributes.get(attribute) if attribute else None
    if text is None:
        return published.astimezone(UTC)
    with suppress(ValueError, OverflowError, OSError):  # Told below, as a time without a zone is.
        if text.lstrip("-").isdecimal():
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    raise ValueError(
        f"attribute {attribute} is {text[:_SHOWN]!r}, not milliseconds since 1970 or a time such as "
        "2013-06-01T12:00:00Z"
    )


def _from_example(data: bytes) -> Mapping[str, Any]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(data).features.feature
    except DecodeError as error:
        raise ValueError(f"not a serialized tf.Example: {error}") from error
    return {name: _first(feature) for name, feature in features.items()}


def _first(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    values = getattr(feature, kind).value if kind else ()
    if not values:
        return None
    if not isinstance(values[0], bytes):
        return values[0]
    try:
        return values[0].decode()
    except UnicodeDecodeError:
        return values[0]  # The decoder says what is wrong with it.


_PARSERS = {"json": parse_object, "example": _from_example}
