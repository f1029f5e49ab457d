"""`headworks stream`: messages to predictions, with whatever version is pushed."""

from __future__ import annotations

import re
import signal
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from cli import dataflow_file as settings_file

if TYPE_CHECKING:
    from beam_jobs.row_sinks import DeadLetterSink, RowSink
    from beam_jobs.spans import Landing
    from beam_jobs.streaming import StreamJob
    from cloud.bigquery import Connection, TableName

_SQLITE = "sqlite:///"
_BIGQUERY = "bigquery://"
_BIGQUERY_FORM = f"{_BIGQUERY}PROJECT.DATASET.TABLE"
_TOPIC_FORM = "projects/PROJECT/topics/TOPIC"
_TOPIC = re.compile("projects/[^/]+/topics/[^/]+")
_JSON_LINES = ".jsonl"
_PREDICTIONS, _DEAD_LETTERS, _STATISTICS = "predictions", "dead_letters", "window_statistics"


@click.command("stream")
@click.argument("serving")
@click.option("--from", "subscription", required=True, help="projects/PROJECT/subscriptions/SUBSCRIPTION")
@click.option(
    "--to",
    "predictions",
    required=True,
    help="Predictions: projects/PROJECT/topics/TOPIC, bigquery://PROJECT.DATASET.TABLE or sqlite:///FILE.",
)
@click.option("--dead-letters", required=True, help="What gets none: a topic, a table or sqlite:///FILE.")
@click.option("--statistics", help="Records of windows: a topic, FILE.jsonl or sqlite:///FILE.")
@click.option("--window", "window_s", type=click.FloatRange(min=1), default=60.0, help="Seconds; 60.")
@click.option("--land", help="Folders of spans that scored events become, such as events/{SPAN}.")
@click.option(
    "--land-every",
    "land_s",
    type=click.FloatRange(min=1),
    default=3600.0,
    help="Seconds of a span; 3600. Its messages are held in memory, and their leases kept, until it has passed.",
)
@click.option("--form", type=click.Choice(["json", "example"]), default="json", help="What a message holds.")
@click.option("--id-attribute", default="id", help="Attribute that names a message's prediction; id.")
@click.option("--time-attribute", help="Attribute with the event time; absent: the time of publishing.")
@click.option(
    "--carry", multiple=True, metavar="COLUMN", help="Input column for the output; may be repeated."
)
@click.option("--batch-rows", type=click.IntRange(min=1), default=256, help="Scored at once, at most; 256.")
@click.option(
    "--batch-age",
    "batch_age_s",
    type=click.FloatRange(min=0),
    default=0.05,
    help="Seconds a batch waits; 0.05.",
)
@click.option(
    "--watch",
    "watch_s",
    type=click.FloatRange(min=0.1),
    default=10.0,
    help="Seconds between two looks for a version.",
)
@click.option(
    "--delay",
    "delay_s",
    type=click.FloatRange(min=0),
    default=2.0,
    help="Seconds a message may come after its event; 2.",
)
@click.option(
    "--lease",
    "lease_s",
    type=click.IntRange(10, 600),
    default=10,
    help="Seconds until messages of a killed job return; 10. Longer ones cost fewer renewals.",
)
@settings_file.dataflow_option
@click.option("--job", "job_id", metavar="NAME", help="With --dataflow: its name; stream-SUBSCRIPTION.")
def stream(dataflow_file: Path | None, job_id: str | None, **options: object) -> None:
    """Score Pub/Sub messages with the model that is live in SERVING, until interrupted.

    SERVING is the folder that a pipeline pushes to: a new version there takes over between two batches. A message is
    acknowledged when everything made of it is written. With --dataflow the command submits the job, says where to look
    at it, and ends; the job runs until it is drained or cancelled.
    """
    if dataflow_file:
        _submit(dataflow_file, job_id, options)
        return
    if job_id:
        raise click.UsageError("--job goes with --dataflow")
    from beam_jobs.streaming import start_locally
    from cloud.pubsub import PulledSubscription

    signal.signal(signal.SIGTERM, _interrupt)
    job = stream_job(**options)  # type: ignore[arg-type]
    result, runner = start_locally(job, PulledSubscription)
    click.echo(f"{job.subscription} is scored by {job.serving}; stop with Ctrl-C")
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        result.cancel()
    finally:
        runner.close()


def _submit(file: Path, job_id: str | None, options: dict[str, object]) -> None:
    settings = settings_file.read(file)
    _require_reachable(options)
    from beam_jobs.decoding import check_carried
    from beam_jobs.encoding import answer_fields
    from beam_jobs.pushed import PushedModel
    from beam_jobs.streaming import build
    from cloud import dataflow

    job = stream_job(**options)  # type: ignore[arg-type]
    dataflow.check_staging(settings)
    # Workers that find no version, or cannot write its columns, would try for ever.
    with dataflow.explained(f"{job.serving} cannot be read"):
        pushed = PushedModel.read(job.serving)
    check_carried(pushed, job.carry, [name for name, _ in answer_fields(pushed)])
    name = job_id or f"stream-{job.subscription.rpartition('/')[2]}"
    submitted = dataflow.submit(partial(build, job=job), settings, name, streaming=True)
    click.echo(f"{job.subscription} is scored by {job.serving}, now version {pushed.version}")
    click.echo(f"job {submitted.name}: {submitted.page}")


def _require_reachable(options: dict[str, object]) -> None:
    settings_file.require_in_store("SERVING", str(options["serving"]))
    for option, name in (
        ("--to", "predictions"), ("--dead-letters", "dead_letters"), ("--statistics", "statistics")
    ):  # fmt: skip
        place = str(options[name] or "")
        if place.startswith(_SQLITE) or place.endswith(_JSON_LINES):
            raise click.UsageError(
                f"{option} {place}: workers of Dataflow have no file of this machine; want a topic or a table"
            )
    if options["land"]:
        raise click.UsageError(
            f"--land {options['land']}: spans are landed on this machine only, not by --dataflow"
        )


def stream_job(
    *,
    serving: str,
    subscription: str,
    predictions: str,
    dead_letters: str,
    statistics: str | None,
    window_s: float,
    land: str | None,
    land_s: float,
    **settings: object,
) -> StreamJob:
    """The job that the options describe."""
    from beam_jobs.streaming import Sinks, StreamJob
    from beam_jobs.windows import Windows

    sinks = Sinks(
        _predictions_sink(predictions),
        _dead_letter_sink(dead_letters),
        _statistics_sink(statistics) if statistics else None,
    )
    return StreamJob(
        serving,
        subscription,
        sinks,
        windows=Windows(window_s),
        landing=_landing(land, land_s) if land else None,
        **settings,  # type: ignore[arg-type]
    )


def _landing(location: str, size_s: float) -> Landing:
    from beam_jobs.spans import Landing
    from beam_jobs.windows import Windows

    return Landing(location, Windows(size_s))


def _predictions_sink(place: str) -> RowSink:
    from beam_jobs.streaming import PREDICTION_ID

    if place.startswith(_BIGQUERY):
        from cloud.bigquery_rows import IdempotentTable

        return IdempotentTable(*_bigquery(place), id_column=PREDICTION_ID)
    return _row_sink("--to", place, _PREDICTIONS, PREDICTION_ID, _BIGQUERY_FORM)


def _statistics_sink(place: str) -> RowSink:
    if place.endswith(_JSON_LINES):
        from beam_jobs.row_sinks import JsonLinesSink

        return JsonLinesSink(place)
    return _row_sink("--statistics", place, _STATISTICS, "id", f"FILE{_JSON_LINES}")


def _row_sink(option: str, place: str, table: str, key: str, other: str) -> RowSink:
    if place.startswith(_SQLITE):
        from beam_jobs.row_sinks import SqliteSink

        return SqliteSink(place.removeprefix(_SQLITE), table, key)
    if _TOPIC.fullmatch(place):
        from cloud.pubsub import TopicSink

        return TopicSink(place, key)
    raise _unknown(option, place, other)


def _dead_letter_sink(place: str) -> DeadLetterSink:
    if place.startswith(_SQLITE):
        from beam_jobs.row_sinks import SqliteDeadLetters

        return SqliteDeadLetters(place.removeprefix(_SQLITE), _DEAD_LETTERS)
    if place.startswith(_BIGQUERY):
        from cloud.bigquery_rows import DeadLetterTable

        return DeadLetterTable(*_bigquery(place))
    if _TOPIC.fullmatch(place):
        from cloud.pubsub import DeadLetterTopic

        return DeadLetterTopic(place)
    raise _unknown("--dead-letters", place, _BIGQUERY_FORM)


def _unknown(option: str, place: str, other: str) -> click.UsageError:
    return click.UsageError(f"{option} {place}: want {_TOPIC_FORM}, {_SQLITE}FILE or {other}")


def _bigquery(place: str) -> tuple[TableName, Connection]:
    from cloud.bigquery import Connection, TableName

    table = TableName.parse(place.removeprefix(_BIGQUERY))
    return table, Connection(table.project)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
