"""A streaming job whose parts fail, in the process of the test and without a Pub/Sub."""

from dataclasses import replace
from typing import Any, ClassVar

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.executor import _ExecutorService

from beam_jobs.local_pubsub import Delivery, LocalPubSubRunner, Reading
from beam_jobs.row_sinks import SqliteDeadLetters, SqliteSink
from beam_jobs.rows import PredictionError
from beam_jobs.spans import Landing
from beam_jobs.streaming import Sinks, StreamJob, build, start_locally
from beam_jobs.windows import Windows
from tests.beam_jobs.pubsub_emulator import until
from tests.beam_jobs.pushed_model import push
from tests.beam_jobs.scripted_subscription import NAME, Subscription


class Kept:
    """What was written, by sink, in the process of the test: sinks are copied from bundle to bundle."""

    written: ClassVar[dict[str, Any]] = {}

    def __init__(self, name):
        self._name = name

    def write(self, rows):
        self.written.setdefault(self._name, []).extend(rows)

    def __len__(self):
        return len(self.written.get(self._name, ()))


class Unwritable:
    def write(self, rows):
        raise PredictionError("the table cannot be written: no space left")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Beam's threads look for the end every five seconds."""
    monkeypatch.setattr(_ExecutorService._ExecutorServiceWorker, "TIMEOUT", 0.1)
    Kept.written.clear()


def job(serving, sinks):
    return StreamJob(str(serving), NAME, sinks, batch_rows=16, batch_age_s=0.01)


def test_a_sink_that_cannot_be_written_ends_the_job_and_nothing_is_acknowledged(serving):
    subscription = Subscription()
    result, runner = start_locally(job(serving, Sinks(Unwritable(), Kept("dead"))), lambda name: subscription)
    with pytest.raises(PredictionError, match="the table cannot be written: no space left"):
        result.wait_until_finish()
    runner.close()
    assert subscription.acknowledged == []


def test_a_broken_model_drains_into_the_dead_letters_and_ends(tmp_path):
    push(tmp_path, weight=float("nan"), with_warm_up=False)
    subscription = Subscription()
    dead = Kept("dead")
    result, runner = start_locally(job(tmp_path, Sinks(Kept("predictions"), dead)), lambda name: subscription)
    until(lambda: len(subscription.acknowledged) == 40, 30)
    result.cancel()
    runner.close()
    assert len(Kept("predictions")) == 0
    assert {letter.position for letter in Kept.written["dead"]} == {f"m{n + 1}" for n in range(40)}
    assert "the model answers" in Kept.written["dead"][0].reason


def test_batches_by_count_and_age_as_on_dataflow_score_every_message(serving):
    subscription = Subscription()
    predictions = Kept("predictions")
    runner = LocalPubSubRunner(lambda name: subscription, Reading(batch_age_s=0.01))
    pipeline = beam.Pipeline(runner, PipelineOptions(["--streaming"]))
    build(pipeline, job(serving, Sinks(predictions, Kept("dead"))))
    result = pipeline.run()
    until(lambda: len(predictions) == 40, 30)
    result.cancel()
    runner.close()
    assert {row["day"] for row in Kept.written["predictions"]} == {f"d{n}" for n in range(40)}


def test_one_name_twice_in_a_batch_is_written_once(serving):
    subscription = Subscription(3)
    first = subscription.waiting[0]
    subscription.waiting.append(Delivery("again", "lease again", first.data, {}, first.published))
    predictions = Kept("predictions")
    result, runner = start_locally(job(serving, Sinks(predictions, Kept("dead"))), lambda name: subscription)
    until(lambda: len(subscription.acknowledged) == 4, 30)
    result.cancel()
    runner.close()
    assert len(predictions) == 3


def test_a_job_can_be_shipped_to_dataflow(serving):
    pipeline = beam.Pipeline(options=PipelineOptions(["--streaming"]))
    sinks = Sinks(SqliteSink("out.db", "predictions", "prediction_id"), SqliteDeadLetters("out.db"))
    build(pipeline, replace(job(serving, sinks), time_attribute="at", landing=Landing("{SPAN}", Windows(60))))
    shipped, _ = pipeline.to_runner_api(return_context=True)
    assert "beam:transform:group_into_batches:v1" in {
        transform.spec.urn for transform in shipped.components.transforms.values()
    }
