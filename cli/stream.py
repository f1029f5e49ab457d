"""`headworks stream`: messages to predictions, with whatever version is pushed."""

from __future__ import annotations

import logging
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from cli import dataflow_file as settings_file
from cli import library_logs
from cli.carried import carry_option

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
_SUBSCRIPTION_FORM = "projects/PROJECT/subscriptions/SUBSCRIPTION"
_SUBSCRIPTION = re.compile("projects/[^/]+/subscriptions/[^/]+")
_JSON_LINES = ".jsonl"
_AGE_S = 0.05
_AGE_ON_DATAFLOW_S = 5.0
"""A batch is a statement of BigQuery, which takes its seconds however few rows there are."""
_PREDICTIONS, _DEAD_LETTERS, _STATISTICS = "predictions", "dead_letters", "window_statistics"


@click.command("stream")
@click.argument("serving")
@click.option("--from", "subscription", required=True, help=_SUBSCRIPTION_FORM)
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
@carry_option
@click.option("--batch-rows", type=click.IntRange(min=1), default=256, help="Scored at once, at most; 256.")
@click.option(
    "--batch-age",
    "batch_age_s",
    type=click.FloatRange(min=0),
    help=f"Seconds a batch waits; {_AGE_S:g}, on Dataflow {_AGE_ON_DATAFLOW_S:g}.",
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
    _require_places(options)
    if dataflow_file:
        _submit(dataflow_file, job_id, options)
        return
    if job_id:
        raise click.UsageError("--job goes with --dataflow")
    _require_serving(str(options["serving"]))
    # Both are read when TensorFlow is loaded.
    os.environ.update({"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", **os.environ})
    signal.signal(signal.SIGTERM, _interrupt)
    log = _log_of(str(options["subscription"]))
    with library_logs.to_file(log), _told():
        _run_here(options, log)


def _log_of(subscription: str) -> Path:
    _, project, _, name = subscription.split("/")
    # No project has an underscore, so that each subscription has a log of its own.
    return Path(tempfile.gettempdir()) / f"stream-{project}_{name}.log"


def _run_here(options: dict[str, object], log: Path) -> None:
    from beam_jobs.rows import own_error, plainly
    from beam_jobs.streaming import start_locally
    from cloud.pubsub import PulledSubscription

    job = stream_job(**options)  # type: ignore[arg-type]
    result, runner = start_locally(job, PulledSubscription)
    version = job.live_model().current().pushed.version
    click.echo(f"{job.subscription} is scored by {job.serving}, now version {version}; stop with Ctrl-C")
    click.echo("; ".join([*_written_to(options), f"log: {log}"]))
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        result.cancel()
    except Exception as error:
        if (cause := own_error(error)) is not None:
            raise plainly(cause) from error
        raise
    finally:
        runner.close()


def _written_to(options: dict[str, object]) -> Iterator[str]:
    for name, what in (
        ("predictions", "predictions"),
        ("dead_letters", "dead letters"),
        ("statistics", "statistics"),
        ("land", "spans"),
    ):
        if options[name]:
            yield f"{what}: {options[name]}"


class _InALine(logging.Formatter):
    """What was logged without the traceback, which the log file has."""

    def format(self, record: logging.LogRecord) -> str:
        why = f": {record.exc_info[1]}" if record.exc_info else ""
        return f"{self.formatTime(record, '%H:%M:%S')} {record.getMessage()}{why}"


@contextmanager
def _told() -> Iterator[None]:
    """Shows on the terminal what the job itself logs: versions that take over or are refused, windows."""
    handler = logging.StreamHandler()
    handler.setFormatter(_InALine())
    ours = logging.getLogger("beam_jobs")
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


def _require_places(options: dict[str, object]) -> None:
    """Refuses an option that cannot be meant, before seconds go into loading what would find out."""
    if not _SUBSCRIPTION.fullmatch(str(options["subscription"])):
        raise click.UsageError(f"--from {options['subscription']}: want {_SUBSCRIPTION_FORM}")
    for option, name, is_other, other in (
        ("--to", "predictions", _is_table, _BIGQUERY_FORM),
        ("--dead-letters", "dead_letters", _is_table, _BIGQUERY_FORM),
        ("--statistics", "statistics", _is_json_lines, f"FILE{_JSON_LINES}"),
    ):
        place = str(options[name] or "")
        if place and not (_TOPIC.fullmatch(place) or _is_database(place) or is_other(place)):
            raise _unknown(option, place, other)


def _is_database(place: str) -> bool:
    return place.startswith(_SQLITE) and place != _SQLITE


def _is_json_lines(place: str) -> bool:
    return place.endswith(_JSON_LINES) and place != _JSON_LINES


def _is_table(place: str) -> bool:
    if not place.startswith(_BIGQUERY):
        return False
    from cloud.bigquery import BigQueryError

    try:
        _bigquery(place)
    except BigQueryError:
        return False
    return True


def _require_serving(serving: str) -> None:
    if "://" not in serving and not Path(serving).is_dir():
        raise click.UsageError(f"SERVING {serving}: no such folder; name the one that a pipeline pushes to")


def _submit(file: Path, job_id: str | None, options: dict[str, object]) -> None:
    settings = settings_file.read(file)
    _require_reachable(options)
    from beam_jobs.decoding import check_carried
    from beam_jobs.encoding import answer_fields
    from beam_jobs.pushed import PushedModel
    from beam_jobs.streaming import build
    from cloud import dataflow

    job = stream_job(**options, usual_age_s=_AGE_ON_DATAFLOW_S)  # type: ignore[arg-type]
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
    for option, name, wanted in (
        ("--to", "predictions", f"{_TOPIC_FORM} or {_BIGQUERY_FORM}"),
        ("--dead-letters", "dead_letters", f"{_TOPIC_FORM} or {_BIGQUERY_FORM}"),
        ("--statistics", "statistics", _TOPIC_FORM),
    ):
        place = str(options[name] or "")
        if place.startswith(_SQLITE) or place.endswith(_JSON_LINES):
            raise click.UsageError(
                f"{option} {place}: workers of Dataflow have no file of this machine; want {wanted}"
            )
    if options["batch_age_s"] == 0:
        raise click.UsageError("--batch-age 0: on Dataflow a batch would wait until it is full; want more")
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
    batch_age_s: float | None,
    usual_age_s: float = _AGE_S,
    **settings: object,
) -> StreamJob:
    """The job that the options describe; `usual_age_s` is the age of batches where they do not."""
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
        batch_age_s=usual_age_s if batch_age_s is None else batch_age_s,
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
        from beam_jobs.windows import LATENESS_S
        from cloud.bigquery_rows import IdempotentTable

        return IdempotentTable(
            *_bigquery(place), id_column=PREDICTION_ID, look_back=timedelta(seconds=LATENESS_S)
        )
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
