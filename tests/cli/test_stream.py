"""The options of `headworks stream`."""

import json
from datetime import timedelta

import click
import pytest
from click.testing import CliRunner
from google.cloud import dataflow_v1beta3

from beam_jobs.row_sinks import JsonLinesSink, SqliteDeadLetters, SqliteSink
from cli.main import main
from cli.stream import _log_of, stream, stream_job
from cloud.bigquery_rows import DeadLetterTable, IdempotentTable
from cloud.pubsub import DeadLetterTopic, TopicSink
from tests.beam_jobs.pushed_model import push
from tests.cli.dataflow_jobs import settings_file
from tests.cloud.dataflow_service import serving as dataflow
from tests.cloud.test_dataflow import IMAGE

SUBSCRIPTION = "projects/local-project/subscriptions/events"
TOPIC = "projects/local-project/topics/out"
TABLE = "bigquery://local-project.served.predictions"
FOR_DATAFLOW = {"dataflow_file", "job_id"}


def job(*arguments, to=TOPIC, dead_letters=TOPIC):
    needed = ["serving", "--from", SUBSCRIPTION, "--to", to, "--dead-letters", dead_letters]
    options = stream.make_context("stream", [*needed, *arguments]).params
    return stream_job(**{name: value for name, value in options.items() if name not in FOR_DATAFLOW})


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


def test_columns_to_carry_are_named_with_commas_or_one_by_one():
    assert job("--carry", "a, b", "--carry", "c", "--carry", "a,").carry == ("a", "b", "c")


def test_doubles_in_a_table_are_looked_for_as_far_back_as_messages_count_in_their_own_window():
    assert job(to=TABLE).sinks.predictions.look_back == timedelta(days=7)


def test_a_batch_waits_longer_where_it_is_a_statement_of_bigquery():
    assert job().batch_age_s == 0.05
    assert job("--batch-age", "0").batch_age_s == 0
    options = stream.make_context(
        "stream", ["s", "--from", "f", "--to", TOPIC, "--dead-letters", TOPIC]
    ).params
    given = {name: value for name, value in options.items() if name not in FOR_DATAFLOW}
    assert stream_job(**given, usual_age_s=5.0).batch_age_s == 5.0


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


@pytest.mark.parametrize(
    "table",
    ["my-project.served.rows", "my-project:served.rows", "example.com:my-project.served.rows"],
)
def test_a_table_is_named_as_bigquery_names_it(table):
    result = CliRunner().invoke(
        main,
        ["stream", "nowhere", "--from", SUBSCRIPTION, "--to", f"bigquery://{table}", "--dead-letters", TOPIC],
    )
    assert "SERVING nowhere: no such folder" in result.output


def test_subscriptions_of_one_name_in_two_projects_have_two_logs():
    assert _log_of("projects/my-project/subscriptions/events").name == "stream-my-project_events.log"
    assert _log_of("projects/other/subscriptions/events").name == "stream-other_events.log"


def submit(file, *arguments, serving="gs://my-bucket/serving", to=TOPIC, dead_letters=TOPIC):
    needed = ["stream", serving, "--from", SUBSCRIPTION, "--to", to, "--dead-letters", dead_letters]
    return CliRunner().invoke(main, [*needed, "--dataflow", str(file), *arguments])


def test_on_dataflow_the_job_is_submitted_and_left_to_run(tmp_path, storage):
    version = push(tmp_path / "serving", with_warm_up=False)
    storage.bucket("my-bucket").blob("serving/1/manifest.json").upload_from_filename(
        version / "manifest.json"
    )
    with dataflow() as service:
        file = settings_file(tmp_path, service.dataflow)
        result = submit(file, "--statistics", TOPIC, to=TABLE)
        named = submit(file, "--job", "events-2")
        refused = submit(file, "--carry", "prediction")
        assert refused.exit_code == 1
        assert "column 'prediction' cannot be carried" in refused.output
        assert {method for method, _ in service.requests} == {"POST"}, "nobody asks how it goes on"
        first, second = service.jobs
    assert (result.exit_code, named.exit_code) == (0, 0), result.output
    assert "is scored by gs://my-bucket/serving, now version 1" in result.output
    assert (
        "job stream-events: https://console.cloud.google.com/dataflow/jobs/europe-west1/job-1"
        in result.output
    )
    assert second["name"] == "events-2"
    del first["request"]
    asked = dataflow_v1beta3.Job.from_json(json.dumps(first))
    assert (asked.name, asked.type_.name, dict(asked.labels)) == (
        "stream-events",
        "JOB_TYPE_STREAMING",
        {"team": "flights"},
    )
    assert "enable_streaming_engine" in asked.environment.experiments
    (pool,) = asked.environment.worker_pools
    assert {image.container_image for image in pool.sdk_harness_container_images} == {IMAGE}


def test_a_serving_folder_without_a_version_is_no_job(tmp_path, storage):
    with dataflow() as service:
        result = submit(settings_file(tmp_path, service.dataflow))
        assert service.requests == []
    assert result.exit_code == 1
    assert "gs://my-bucket/serving: no pushed model here" in result.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"to": "bigquery://served.rows"}, "--to bigquery://served.rows: want projects/PROJECT/topics/TOPIC"),
        ({"dead_letters": "out.csv"}, "--dead-letters out.csv: want projects/PROJECT/topics/TOPIC"),
        ({"serving": "output/serving"}, "SERVING output/serving: with --dataflow it has to be"),
        ({"to": "sqlite:///p.db"}, "--to sqlite:///p.db: workers of Dataflow have no file"),
        ({"dead_letters": "sqlite:///d.db"}, "--dead-letters sqlite:///d.db: workers of Dataflow"),
    ],
)
def test_what_workers_on_dataflow_cannot_reach_is_refused_by_name(tmp_path, given, message):
    result = submit(settings_file(tmp_path), **given)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--statistics", "w.jsonl", "no file of this machine; want projects/PROJECT/topics/TOPIC\n"),
        ("--statistics", TABLE, "want projects/PROJECT/topics/TOPIC, sqlite:///FILE or FILE.jsonl"),
        ("--land", "events/{SPAN}", "spans are landed on this machine only"),
        ("--batch-age", "0", "a batch would wait until it is full"),
    ],
)
def test_what_is_not_for_dataflow_is_refused_with_what_is(tmp_path, option, value, why):
    result = submit(settings_file(tmp_path), option, value)
    assert result.exit_code == 2
    assert f"{option} {value}: " in result.output
    assert why in result.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"--from": "events"}, "--from events: want projects/PROJECT/subscriptions/SUBSCRIPTION"),
        ({"--to": "out.csv"}, "--to out.csv: want projects/PROJECT/topics/TOPIC"),
        (
            {"--dead-letters": "bigquery://dataset.table"},
            "want projects/PROJECT/topics/TOPIC, sqlite:///FILE or",
        ),
        ({"--statistics": TABLE}, "want projects/PROJECT/topics/TOPIC, sqlite:///FILE or FILE.jsonl"),
        ({}, "SERVING nowhere: no such folder"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_loaded(given, message):
    options = {"--from": SUBSCRIPTION, "--to": TOPIC, "--dead-letters": TOPIC, **given}
    arguments = [part for pair in options.items() for part in pair]
    result = CliRunner().invoke(main, ["stream", "nowhere", *arguments])
    assert result.exit_code == 2
    assert message in result.output
