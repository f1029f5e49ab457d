"""The reader of Pub/Sub that acknowledges after the work, without a Pub/Sub."""

from datetime import UTC, datetime

import pytest

from beam_jobs.local_pubsub import Delivery, Inbox, LocalPubSubRunner, Reading, _evaluated_by
from beam_jobs.rows import PredictionError
from tests.beam_jobs.pubsub_emulator import until

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC).timestamp()


class Subscription:
    """Delivers what it is given, and notes what becomes of it."""

    def __init__(self):
        self.deliveries = []
        self.acknowledged = []
        self.renewed = []

    def pull(self):
        delivered, self.deliveries = self.deliveries, []
        return delivered

    def renew(self, leases, lease_s):
        self.renewed += leases

    def acknowledge(self, leases):
        self.acknowledged += leases

    def close(self):
        pass


def delivery(name, lease=None, at=NOON):
    return Delivery(name, lease or f"lease of {name}", b"", {}, datetime.fromtimestamp(at, UTC))


def inbox(subscription, clock=lambda: NOON, **reading):
    return Inbox(subscription, Reading(batch_age_s=0.01, **reading), clock)


def test_a_message_is_acknowledged_when_every_step_is_done_with_it():
    subscription = Subscription()
    messages = inbox(subscription, steps=("predictions", "spans"))
    messages.deliver([delivery("a")])
    messages.deliver([delivery("b")])
    messages.confirm(["a", "b"], "predictions")
    messages.confirm(["b", "b"], "predictions")
    assert subscription.acknowledged == []
    messages.confirm(["b"], "spans")
    assert subscription.acknowledged == ["lease of b"]
    assert messages.unacknowledged == 1


def test_a_message_that_comes_again_while_in_hand_is_taken_once_and_acknowledged_by_its_new_lease():
    subscription = Subscription()
    messages = inbox(subscription)
    messages.deliver([delivery("a", "first")])
    messages.deliver([delivery("a", "second")])
    assert [taken.id for _, taken in messages.take()] == ["a"]
    messages.confirm(["a"], "predictions")
    assert subscription.acknowledged == ["second"]


def test_a_message_that_comes_again_after_it_was_acknowledged_is_acknowledged_and_not_taken():
    subscription = Subscription()
    messages = inbox(subscription)
    messages.deliver([delivery("a", "first")])
    messages.take()
    messages.confirm(["a"], "predictions")
    messages.deliver([delivery("a", "second")])
    assert messages.take() == []
    assert subscription.acknowledged == ["first", "second"]


def test_no_more_than_a_batch_is_taken_at_once():
    messages = inbox(Subscription(), batch_rows=2)
    for name in "abc":
        messages.deliver([delivery(name)])
    assert [[taken.id for _, taken in messages.take()] for _ in range(2)] == [["a", "b"], ["c"]]


def test_the_watermark_waits_for_the_oldest_of_what_was_taken_and_never_goes_back():
    messages = inbox(Subscription(), delay_s=2.0)
    messages.deliver([delivery("a", at=NOON - 50)])
    messages.deliver([delivery("b", at=NOON - 10)])
    messages.take()
    assert messages.watermark == NOON - 52
    messages.deliver([delivery("c", at=NOON - 500)])
    messages.take()
    assert messages.watermark == NOON - 52
    messages.deliver([delivery("d", at=NOON + 500)])
    messages.take()
    assert messages.watermark == NOON - 2


def test_an_idle_watermark_waits_until_the_leases_of_a_killed_job_have_run_out():
    times = [NOON]
    messages = inbox(Subscription(), clock=lambda: times[-1], lease_s=10, delay_s=2.0)
    times.append(NOON + 11)
    messages.take()
    assert messages.watermark == 0
    times.append(NOON + 13)
    messages.take()
    assert messages.watermark == NOON + 11


def test_leases_are_renewed_while_messages_are_in_hand():
    subscription = Subscription()
    messages = inbox(subscription, lease_s=0.03)
    subscription.deliveries = [delivery("a")]
    messages.open()
    until(lambda: subscription.renewed.count("lease of a") > 3, 10)
    messages.confirm(["a"], "predictions")
    messages.close()
    assert subscription.acknowledged == ["lease of a"]


def test_a_subscription_that_fails_fails_the_job():
    class Broken(Subscription):
        def pull(self):
            raise PredictionError("permission denied")

    messages = inbox(Broken())
    messages.open()
    until(lambda: messages._error, 10)
    with pytest.raises(PredictionError, match="no more messages: permission denied"):
        messages.take()


def test_this_beam_still_has_what_the_runner_builds_on():
    from apache_beam.runners.direct import direct_runner, transform_evaluator

    registry = transform_evaluator.TransformEvaluatorRegistry
    runner = LocalPubSubRunner(lambda name: Subscription(), Reading())
    evaluator = runner._evaluator()
    with _evaluated_by(evaluator):
        assert registry(object())._evaluators[direct_runner._DirectReadFromPubSub] is evaluator
    assert (
        registry(object())._evaluators[direct_runner._DirectReadFromPubSub]
        is transform_evaluator._PubSubReadEvaluator
    )


def test_what_waits_for_room_has_its_lease_renewed_too():
    subscription = Subscription()
    messages = inbox(subscription, batch_rows=1, lease_s=0.03)
    subscription.deliveries = [delivery(str(number)) for number in range(50)]
    messages.open()
    until(lambda: subscription.renewed.count("lease of 49") > 3, 10)
    taken = [message.id for _ in range(50) for _, message in messages.take()]
    messages.close()
    assert taken == [str(number) for number in range(50)]
