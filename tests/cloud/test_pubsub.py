"""Topics of Google's Pub/Sub emulator as sinks."""

import pytest

from beam_jobs.rows import DeadLetter, PredictionError
from cloud import pubsub as ours
from cloud.pubsub import DeadLetterTopic, PulledSubscription, TopicSink
from tests.beam_jobs.conftest import pubsub  # noqa: F401 - a fixture
from tests.beam_jobs.pubsub_emulator import until

LARGEST = 10_000_000 - 100
"""About what a message can be that has no attributes."""


@pytest.fixture
def topic(pubsub, request):  # noqa: F811
    ours._publisher.cache_clear()
    yield pubsub.topic(request.node.name.replace("_", "-"))
    ours._publisher.cache_clear()


def test_the_largest_message_goes_to_the_dead_letters_cut_to_what_fits_beside_its_reason(topic):
    name, subscription = topic
    raw = b"{" * LARGEST
    DeadLetterTopic(name).write([DeadLetter(subscription, "7", "é" * 5000, raw)])
    [came] = PulledSubscription(subscription).pull()
    size = len(came.data)
    assert raw.startswith(came.data)
    assert size > 9_900_000
    assert came.attributes["reason"].startswith(f"(only the first {size} of {LARGEST} bytes are kept here) é")


def test_messages_that_together_are_longer_than_an_answer_usually_is_are_pulled(topic):
    name, subscription = topic
    TopicSink(name, "id").write([{"id": str(number), "text": "x" * 10_000} for number in range(900)])
    messages = PulledSubscription(subscription)
    pulled: set[str] = set()

    def are_all_pulled():
        pulled.update(one.attributes["id"] for one in messages.pull())
        return len(pulled) == 900

    until(are_all_pulled)


def test_a_row_that_is_no_message_is_told_as_a_sink_s_error(topic):
    name, _ = topic
    with pytest.raises(PredictionError, match=f"{name}: .*too large|{name}: .*larger"):
        TopicSink(name, "id").write([{"id": "a", "text": "x" * 10_000_000}])
