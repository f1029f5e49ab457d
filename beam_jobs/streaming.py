"""The streaming job: messages to predictions, each written once, with what a watcher of the job wants to know.

    read ──► micro-batches ──► score ──► write ──┬──► statistics by window
                                                 └──► spans by window

A micro-batch goes through as one element. `score` takes the live version once, so a batch has one version; `write`
returns when the sinks have it, and a message is acknowledged only then (locally by `local_pubsub`, on Dataflow by its
own reader once the bundle is committed). A message that comes again, delivered or published, makes the row it made
before: its name is its prediction id, and its `predicted_at` is its event time. The first row of a name stays; one that
came again after a new version took over would otherwise differ.

Nothing fails for ever. A message that cannot be read, misses what the model requires, or breaks the model goes to the
dead letters; of a batch that the model fails on, the rows to blame are found by halving, so a batch costs at most twice
its rows in calls and a wholly broken version drains into the dead letters, from where messages can be published again.
A sink that cannot be written to is another matter, as no message is to blame: Beam tries the batch four times, then the
local job ends with the sink's error; Dataflow goes on trying. Nothing of the batch is acknowledged, and it comes again.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from beam_jobs import local_pubsub, spans, windows
from beam_jobs.core import Direct, Scorer
from beam_jobs.encoding import probability_columns
from beam_jobs.live_model import LiveModel, shared
from beam_jobs.local_pubsub import LocalPubSubRunner, Reading, Subscription
from beam_jobs.messages import Event, Form, Message, Reader, event_time
from beam_jobs.pushed import PushedModel
from beam_jobs.row_sinks import DeadLetterSink, Row, RowSink
from beam_jobs.rows import Batch
from beam_jobs.scored import Confirm, Scored, ScoredDeadLetter, ScoredRow

PREDICTION_ID = "prediction_id"
STEP = "predictions"
_NAMESPACE = "headworks"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sinks:
    """Where a job writes.

    Attributes:
      predictions: rows, named by `prediction_id`.
      dead_letters: messages without a prediction.
      statistics: records of windows, named by `id`; None: none are made.
    """

    predictions: RowSink
    dead_letters: DeadLetterSink
    statistics: RowSink | None = None


@dataclass(frozen=True)
class StreamJob:
    """A streaming job.

    Attributes:
      serving: serving folder that new versions are pushed to.
      subscription: `projects/PROJECT/subscriptions/SUBSCRIPTION`.
      sinks: where it writes.
      form: what a message holds: a JSON object of raw columns, or a serialized tf.Example.
      id_attribute: attribute that names a message's prediction.
      time_attribute: attribute with a message's event time; None: when it was published.
      carry: input columns that go to the output beside the key.
      batch_rows: messages that are scored at once, at most.
      batch_age_s: for how long the first of them waits for others.
      buckets: batches that are under way at once, on Dataflow: messages are dealt to buckets by prediction id, and a
        bucket's batches follow each other. BigQuery queues 20 statements that change a table and refuses more.
      watch_s: seconds between two looks for a new version.
      delay_s: how long after its event a message may come and be in time for its window; locally.
      lease_s: how soon after a kill messages under way are delivered again; locally.
      windows: of the statistics.
      landing: where scored events become spans of data; None: nowhere.
    """

    serving: str
    subscription: str
    sinks: Sinks
    form: Form = "json"
    id_attribute: str = "id"
    time_attribute: str | None = None
    carry: tuple[str, ...] = ()
    batch_rows: int = 256
    batch_age_s: float = 0.05
    buckets: int = 16
    watch_s: float = 10.0
    delay_s: float = 2.0
    lease_s: int = 10
    windows: windows.Windows = field(default_factory=lambda: windows.Windows(size_s=60.0))
    landing: spans.Landing | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that make something lasting of a message."""
        made = [STEP]
        if self.sinks.statistics:
            made.append(windows.STEP)
        if self.landing:
            made.append(spans.STEP)
        return tuple(made)

    @property
    def reader(self) -> Reader:
        """What reads the messages."""
        return Reader(self.subscription, self.form, self.id_attribute, self.time_attribute)

    def live_model(self) -> LiveModel[Scorer]:
        """The watched model of this process."""
        return shared(
            (self.serving, self.carry),
            lambda: LiveModel(self.serving, partial(load, carry=self.carry), self.watch_s),
        )


def load(folder: str, carry: Sequence[str]) -> Scorer:
    """A version that has passed its load check.

    Raises:
      PredictionError: if its files are not what was pushed, or it does not answer as in training.
    """
    pushed = PushedModel.read(folder)
    return Scorer(pushed, Direct(pushed.load()), (*carry, PREDICTION_ID))


def start_locally(
    job: StreamJob, subscribe: Callable[[str], Subscription]
) -> tuple[PipelineResult, LocalPubSubRunner]:
    """Starts a job on this machine, in threads of this process.

    Args:
      job: the job.
      subscribe: connects to the subscription (`cloud.pubsub.PulledSubscription`).

    Returns:
      The running pipeline, and the runner, to be closed at the end.

    Raises:
      PredictionError: if no version can be used, or there is no such subscription.
    """
    job.live_model()
    reading = Reading(
        job.batch_rows, job.batch_age_s, job.time_attribute, job.delay_s, job.lease_s, job.steps
    )
    runner = LocalPubSubRunner(subscribe, reading)
    runner.inbox(job.subscription)
    pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(["--streaming"]))
    build(pipeline, job, confirm=partial(local_pubsub.confirm, job.subscription))
    return pipeline.run(), runner


def build(pipeline: beam.Pipeline, job: StreamJob, confirm: Confirm | None = None) -> None:
    """Adds the job to a pipeline.

    Args:
      pipeline: a streaming one.
      job: the job.
      confirm: acknowledges messages, on the local runner; None where the runner does.
    """
    messages = (
        pipeline
        | "Read"
        >> ReadFromPubSub(
            subscription=job.subscription, with_attributes=True, timestamp_attribute=job.time_attribute
        )
        | "Message" >> beam.Map(as_message)
    )
    # A local bundle is what was taken from the subscription at once, and the next waits for it; bundles of Dataflow
    # are often single messages, and many are under way at once.
    batches = messages | "Batch" >> (beam.ParDo(BundleAsBatch()) if confirm else BatchByBucket(job))
    written = batches | "Score" >> beam.ParDo(Score(job)) | "Write" >> beam.ParDo(Write(job.sinks, confirm))
    if job.sinks.statistics:
        written | "Statistics" >> windows.StatisticsByWindow(job.windows, job.sinks.statistics, confirm)
    if job.landing:
        written | "Spans" >> spans.LandAsSpans(job.landing, confirm)


def as_message(message: PubsubMessage) -> Message:
    """Beam's message as ours."""
    return Message(message.message_id, message.data or b"", message.attributes or {}, message.publish_time)


class BundleAsBatch(beam.DoFn):
    """The messages of a bundle as one batch, at the event time of the oldest."""

    def start_bundle(self) -> None:
        self._messages: list[Message] = []
        self._oldest = MAX_TIMESTAMP

    def process(self, message: Message, time: Timestamp = beam.DoFn.TimestampParam) -> None:
        self._messages.append(message)
        self._oldest = min(self._oldest, time)

    def finish_bundle(self) -> Any:
        if self._messages:
            yield GlobalWindows.windowed_value(self._messages, self._oldest)


class BatchByBucket(beam.PTransform):
    """Messages of a bucket gathered until there are enough of them, or the first has waited long enough.

    A prediction id is always in one bucket, and Beam has one worker at a time write a bucket's batches: two messages of
    one id, published at the same moment, cannot both find that the table does not have it.
    """

    def __init__(self, job: StreamJob) -> None:
        super().__init__()
        self._job = job

    def expand(self, messages: beam.PCollection) -> beam.PCollection:
        return (
            messages
            | beam.ParDo(IntoBucket(self._job)).with_output_types(tuple[int, Message])
            | beam.GroupIntoBatches(self._job.batch_rows, self._job.batch_age_s)
            | beam.Values()
            | beam.Map(list)
        )


class IntoBucket(beam.DoFn):
    """A message with the number of its bucket."""

    def __init__(self, job: StreamJob) -> None:
        self._job = job

    def setup(self) -> None:
        self._live = self._job.live_model()

    def process(self, message: Message) -> Any:
        key = self._live.current().pushed.key
        yield bucket(message, self._job.reader, key, self._job.buckets), message


def bucket(message: Message, reader: Reader, key: Sequence[str], buckets: int) -> int:
    """The bucket of what is made of a message: of its prediction id or, where it cannot be read, of its own."""
    events, _ = reader.read([message])
    name = reader.prediction_id(events[0], key) if events else message.id
    # Python's own hash is another in each worker.
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big") % buckets


class Score(beam.DoFn):
    """A batch of messages to a `Scored`, by whatever version is live."""

    def __init__(self, job: StreamJob) -> None:
        self._job = job
        self._predicted = Metrics.counter(_NAMESPACE, "predicted")
        self._dead = Metrics.counter(_NAMESPACE, "dead_letters")

    def setup(self) -> None:
        self._live = self._job.live_model()

    def process(self, messages: Sequence[Message]) -> Any:
        scorer = self._live.current()
        scored = score(messages, self._job.reader, scorer)
        self._predicted.inc(len(scored.rows))
        self._dead.inc(len(scored.dead))
        for name in nowhere(self._job.carry, scorer.pushed, scored.rows):
            _tell_once(name, self._job.serving)
        yield scored


def nowhere(carry: Sequence[str], pushed: PushedModel, rows: Sequence[ScoredRow]) -> Iterator[str]:
    """Columns to carry that neither the schema nor any of the rows has."""
    for name in carry:
        if rows and name not in pushed.columns and not any(name in row.inputs for row in rows):
            yield name


@cache
def _tell_once(name: str, serving: str) -> None:
    """Logs it, once in a process: batches are many."""
    _LOG.warning(
        "column %r, which is to be carried, is in no row of a whole batch, and the schema of %s has none of that "
        "name: it stays empty until a message brings it",
        name,
        serving,
    )


def score(messages: Sequence[Message], reader: Reader, scorer: Scorer) -> Scored:
    """Every message as a row with its prediction, or as a dead letter."""
    pushed = scorer.pushed
    events, dead = reader.read(messages)
    outputs: list[Row] = []
    if events:
        outcome = scorer.score(_named(events, reader, pushed.key), [event.time for event in events])
        dead += outcome.dead_letters
        outputs = outcome.predictions.to_pylist() if outcome.predictions is not None else []
    # Whatever is no dead letter is a prediction, in the order of the messages.
    refused = {letter.position for letter in dead}
    kept = [event for event in events if event.message.id not in refused]
    times = {message.id: _time(message, reader) for message in messages}
    label = pushed.features.label.name
    return Scored(
        version=pushed.version,
        features=tuple(feature.name for feature in pushed.features),
        columns={name: dtype for name, dtype in pushed.columns.items() if name != label},
        has_probabilities=not pushed.is_regression,
        rows=tuple(_row(event, output, pushed) for event, output in zip(kept, outputs, strict=True)),
        dead=tuple(ScoredDeadLetter(letter, times[letter.position]) for letter in dead),
    )


def _named(events: Sequence[Event], reader: Reader, key: Sequence[str]) -> Batch:
    batch = reader.batch(events)
    ids: list[Any] = [reader.prediction_id(event, key) for event in events]
    return replace(batch, columns={**batch.columns, PREDICTION_ID: ids})


def _row(event: Event, output: Row, pushed: PushedModel) -> ScoredRow:
    classes = pushed.features.label.classes
    probabilities = [output[name] for name in probability_columns(classes)]
    score = probabilities[1] if len(classes) == 2 else max(probabilities, default=output["prediction"])
    return ScoredRow(
        message_id=event.message.id,
        prediction_id=output[PREDICTION_ID],
        time=event.time,
        inputs=event.values,
        output={name: _finite(value) for name, value in output.items()},
        score=score,
        predicted_class=output["prediction"] if classes else None,
    )


def _finite(value: Any) -> Any:
    """A carried NaN is no value: JSON has none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _time(message: Message, reader: Reader) -> datetime:
    try:
        return event_time(message.attributes, reader.time_attribute, message.published)
    except ValueError:
        return message.published.astimezone(UTC)


class Write(beam.DoFn):
    """A batch to the sinks; it goes on when they have it."""

    def __init__(self, sinks: Sinks, confirm: Confirm | None) -> None:
        self._sinks = sinks
        self._confirm = confirm

    def process(self, batch: Scored) -> Any:
        if rows := first_of_each(batch.rows):
            self._sinks.predictions.write(rows)
        if batch.dead:
            self._sinks.dead_letters.write([dead.letter for dead in batch.dead])
        if self._confirm:
            self._confirm([member.message_id for member in batch.members], STEP)
        yield batch


def first_of_each(rows: Sequence[ScoredRow]) -> list[Row]:
    """What is written: of rows of one name the first."""
    firsts: dict[str, Row] = {}
    for row in rows:
        firsts.setdefault(row.prediction_id, dict(row.output))
    return list(firsts.values())
