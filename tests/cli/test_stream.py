"""The options of `headworks stream`."""

import click
import pytest

from beam_jobs.row_sinks import JsonLinesSink, SqliteDeadLetters, SqliteSink
from cli.stream import stream, stream_job
from cloud.bigquery_rows import DeadLetterTable, IdempotentTable
from cloud.pubsub import DeadLetterTopic, TopicSink

SUBSCRIPTION = "projects/local-project/subscriptions/events"
TOPIC = "projects/local-project/topics/out"
TABLE = "bigquery://local-project.served.predictions"


def job(*arguments, to=TOPIC, dead_letters=TOPIC):
    needed = ["serving", "--from", SUBSCRIPTION, "--to", to, "--dead-letters", dead_letters]
    return stream_job(**stream.make_context("stream", [*needed, *arguments]).params)


@pytest.mark.parametrize(
    ("place", "rows", "letters"),
    [
        (TOPIC, TopicSink, DeadLetterTopic),
        (TABLE, IdempotentTable, DeadLetterTable),
        ("sqlite:///out.db", SqliteSink, SqliteDeadLetters),
    ],
)
def test_a_place_says_what_writes_there(place, rows, letters):
    sinks = job(to=place, dead_letters=place).sinks
    assert isinstance(sinks.predictions, rows)
    assert isinstance(sinks.dead_letters, letters)


def test_predictions_are_named_by_their_id_and_records_of_windows_by_theirs():
    sinks = job("--statistics", TOPIC, to="sqlite:///a/out.db").sinks
    assert sinks.predictions == SqliteSink("a/out.db", "predictions", "prediction_id")
    assert sinks.statistics == TopicSink(TOPIC, "id")
    assert job("--statistics", "windows.jsonl").sinks.statistics == JsonLinesSink("windows.jsonl")


@pytest.mark.parametrize("option", ["--to", "--dead-letters", "--statistics"])
def test_a_place_that_is_none_is_refused_with_what_there_is(option):
    with pytest.raises(
        click.UsageError, match=f"{option} out.csv: want projects/PROJECT/topics/TOPIC, sqlite"
    ):
        job(option, "out.csv")


def test_the_job_acknowledges_after_all_that_it_makes_of_a_message():
    assert job().steps == ("predictions",)
    assert job("--statistics", TOPIC, "--land", "events/{SPAN}").steps == (
        "predictions",
        "statistics",
        "spans",
    )


def test_spans_are_hours_unless_said_otherwise():
    assert job("--land", "events/{SPAN}").landing.folder(3600.0 * 3).as_posix() == "events/3"
    assert job("--land", "events/{SPAN}", "--land-every", "86400").landing.windows.size_s == 86400
