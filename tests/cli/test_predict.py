"""`headworks predict` and `headworks table` from the command line to files."""

import io
import json
import re
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from beam_jobs.endpoint import tf_serving_url
from beam_jobs.pushed import PushedModel
from beam_jobs.writers import ROWS_FORMATS
from cli.main import main
from cli.predict import _OUTPUT_FORMATS
from tests.beam_jobs.prediction_service import saved_model
from tests.beam_jobs.prediction_service import serving as service
from tests.beam_jobs.pushed_model import chance, push
from tests.cli.dataflow_jobs import settings_file, staged_pipeline, work
from tests.cloud.dataflow_service import serving as dataflow
from tests.cloud.test_dataflow import IMAGE, sent

GS = "gs://my-bucket"
NO_ROWS = """\
name: rain
data:
  source: {kind: query, sql: rows.sql, tables: {days: days.csv}}
  split: {by: hash, columns: [humidity]}
label: {column: rain}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    push(folder)
    return str(folder)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "days.csv"
    path.write_text("day,humidity,gusts,place\nmon,40,3,A\ntue,damp,1,B\n")
    return str(path)


@pytest.fixture
def bucket(model, rows, storage):
    """Cloud Storage with the model and its rows."""
    found = storage.bucket("my-bucket")
    version = Path(PushedModel.read(model).folder)
    for path in version.rglob("*"):
        if path.is_file():
            found.blob(f"serving/1/{path.relative_to(version)}").upload_from_filename(path)
    found.blob("rows/days.csv").upload_from_filename(rows)
    return found


@pytest.fixture
def on_dataflow(bucket, tmp_path, monkeypatch):
    """Runs the command on a Dataflow whose job ends as `service.states` says."""
    monkeypatch.setattr("cloud.dataflow.time.sleep", lambda _: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # Gets the log, as the output is in a store.
    with dataflow() as service:
        file = settings_file(tmp_path, service.dataflow)

        def command(*arguments):
            given = {"--model": f"{GS}/serving", "--input": f"{GS}/rows/days.csv", "--output": f"{GS}/out"}
            flat = [part for pair in given.items() for part in pair]
            return run("predict", *flat, "--job", "j", "--dataflow", file, *arguments)

        yield service, command


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_files_are_scored_and_the_command_says_what_became_of_the_rows(model, rows, tmp_path):
    out = tmp_path / "out"
    result = run(
        "predict", "--model", model, "--input", rows, "--output", out, "--job", "j", "--max-bad-fraction", 0.5
    )
    assert result.exit_code == 0, result.stderr
    assert "rows: 2 read, 1 predicted, 1 dead letters" in result.stdout
    assert "humidity is b'damp', not a number" in result.stdout
    [file] = (out / "j" / "predictions").iterdir()
    [row] = pq.read_table(file).to_pylist()
    assert row["probability_wet_day"] == pytest.approx(chance(40, 3), abs=1e-6)
    assert json.loads((out / "j" / "summary.json").read_text())["model_version"] == 1


def test_columns_that_are_absent_are_noted_and_one_to_carry_is_refused(model, rows, tmp_path):
    (tmp_path / "few.csv").write_text("day,humidity,Gusts\nmon,40,3\n")
    arguments = ("predict", "--model", model, "--input", tmp_path / "few.csv", "--output", tmp_path / "out")
    result = run(*arguments, "--to", "csv.gz", "--carry", "Gusts")
    assert result.exit_code == 0, result.stderr
    assert f"note: gusts is absent from {tmp_path / 'few.csv'}, so it counts as missing" in result.stdout
    (part,) = (tmp_path / "out").glob("*/predictions/*")
    assert part.name.endswith(".csv.gz")
    result = run(*arguments, "--carry", "Gust")
    assert result.exit_code == 1
    assert "few.csv: there is no column 'Gust', which is to be carried" in result.stderr


def test_a_file_of_a_header_alone_is_said_to_have_no_rows(model, tmp_path):
    (tmp_path / "none.csv").write_text("day,humidity,gusts,place\n")
    result = run("predict", "--model", model, "--input", tmp_path / "none.csv", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert f"note: {tmp_path / 'none.csv'} has no rows" in result.stdout


def test_the_columns_that_a_model_takes_can_be_asked_for(model):
    result = run("predict", "--model", model, "--columns")
    assert result.exit_code == 0, result.stderr
    said = {tuple(line.split()) for line in result.stdout.splitlines()}
    assert {("humidity", "number", "required"), ("day", "text", "key")} <= said
    assert ("gusts", "whole", "number", "optional", "nothing", "or", "NA") in said
    assert run("predict", "--model", model, "--columns", "--query").exit_code == 2


def test_a_query_without_a_configuration_is_a_question(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("predict", "--model", model, "--query")
    assert result.exit_code == 2
    assert "there is no pipeline.yaml: name the configuration" in result.stderr


def test_a_configuration_without_output_says_where_its_model_is_looked_for(rows, tmp_path, monkeypatch):
    (tmp_path / "rows.sql").write_text("select humidity, 'dry' as rain from days")
    (tmp_path / "pipeline.yaml").write_text(NO_ROWS)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = run("predict", tmp_path / "pipeline.yaml", "--input", rows)
    assert result.exit_code == 1
    assert "elsewhere/output/rain/serving: no pushed model here" in result.stderr
    assert "go to where the pipeline was run" in result.stderr


def test_a_job_id_that_is_no_name_is_refused_before_a_log_is_written(model, rows, tmp_path):
    result = run("predict", "--model", model, "--input", rows, "--output", tmp_path / "out", "--job", "../x")
    assert result.exit_code == 1
    assert "job id '../x'" in result.stderr
    assert not list(tmp_path.glob("**/*.log"))


def test_a_log_that_cannot_be_written_is_one_sentence(model, rows, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("predict", "--model", model, "--input", rows, "--output", tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "the log cannot be written" in result.stderr


def test_every_format_that_can_be_written_can_be_asked_for():
    assert set(_OUTPUT_FORMATS) == set(ROWS_FORMATS)


def test_a_query_without_rows_is_one_sentence(model, rows, tmp_path):
    (tmp_path / "rows.sql").write_text("select humidity, 'dry' as rain from days where false")
    (tmp_path / "pipeline.yaml").write_text(NO_ROWS)
    result = run("predict", tmp_path / "pipeline.yaml", "--query", "--model", model, "--output", tmp_path)
    assert result.exit_code == 1
    assert "the query gives no rows now" in result.stderr


def test_too_many_bad_rows_exit_with_one_and_one_sentence(model, rows, tmp_path):
    result = run("predict", "--model", model, "--input", rows, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 of 2 rows got no prediction" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--query", "--input", "x.csv"),
        ("--input", "x.csv", "--via", "endpoint"),
        ("--input", "x.csv", "--via", "endpoint", "--endpoint", "http://localhost/", "--model-copies", 1),
    ],
)
def test_options_that_do_not_go_together_are_refused_at_once(model, arguments):
    assert run("predict", "--model", model, *arguments).exit_code == 2


def test_a_listed_table_holds_a_prediction_a_key(model, tmp_path):
    sql = tmp_path / "list.sql"
    sql.write_text("select unnest([10.0, 90.0]) as humidity, 2 as gusts")
    file = tmp_path / "t.sqlite"
    result = run("table", "--model", model, "--sql", sql, "--key", "humidity", "--output", file)
    assert result.exit_code == 0, result.stderr
    found = (
        sqlite3.connect(file)
        .execute("select humidity, probability_wet_day from predictions order by 1")
        .fetchall()
    )
    assert found == [(value, pytest.approx(chance(value, 2), abs=1e-6)) for value in (10.0, 90.0)]


def test_a_listed_row_that_cannot_be_scored_is_named_and_no_table_appears(model, tmp_path):
    (tmp_path / "list.sql").write_text("select 2 as gusts")
    file = tmp_path / "t.sqlite"
    result = run("table", "--model", model, "--sql", tmp_path / "list.sql", "--output", file)
    assert result.exit_code == 1
    assert "misses humidity, which the model requires" in result.stderr
    assert not file.exists()


def test_an_endpoint_answers_as_the_model_in_the_worker_does(model, rows, tmp_path):
    with service(saved_model(PushedModel.read(model).folder)) as server:
        for name, way in (
            ("near", ()),
            ("far", ("--via", "endpoint", "--endpoint", tf_serving_url(server.base, "model"))),
        ):
            arguments = (
                "--input",
                rows,
                "--output",
                tmp_path,
                "--job",
                name,
                "--max-bad-fraction",
                0.5,
                *way,
            )
            assert run("predict", "--model", model, *arguments).exit_code == 0
    near, far = (pq.read_table(tmp_path / name / "predictions").to_pylist() for name in ("near", "far"))
    assert [row["probability_wet_day"] for row in near] == pytest.approx(
        [row["probability_wet_day"] for row in far], abs=1e-6
    )


def test_a_job_on_dataflow_is_published_when_its_workers_are_done(model, bucket, on_dataflow, capfd):
    dataflow_service, command = on_dataflow
    dataflow_service.states = ["JOB_STATE_RUNNING", "JOB_STATE_DONE"]
    dataflow_service.work = lambda: work(staged_pipeline(bucket.client))
    # TensorFlow reads gs:// by itself, from Google only: here the model answers over HTTP.
    with service(saved_model(PushedModel.read(model).folder)) as server:
        url = tf_serving_url(server.base, "model")
        result = command("--via", "endpoint", "--endpoint", url, "--max-bad-fraction", 0.5)
    assert result.exit_code == 0, result.stderr
    assert "rows: 2 read, 1 predicted, 1 dead letters" in result.stdout
    assert [line for line in capfd.readouterr().err.splitlines() if line.startswith("job ")] == [
        "job j: https://console.cloud.google.com/dataflow/jobs/europe-west1/job-1?project=my-project",
        "job j: running",
        "job j: done",
    ]
    asked = sent(dataflow_service)
    assert (asked["name"], asked["type"], asked["labels"]) == ("j", "JOB_TYPE_BATCH", {"team": "flights"})
    (pool,) = asked["environment"]["workerPools"]
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]
    names = sorted(blob.name for blob in bucket.list_blobs(prefix="out/"))
    assert [re.sub("-[0-9a-f]{12}[.]", "-ATTEMPT.", name) for name in names] == [
        "out/j/dead_letters/part-00000-of-00001-ATTEMPT.jsonl",
        "out/j/predictions/part-00000-of-00001-ATTEMPT.parquet",
        "out/j/summary.json",
    ]
    [row] = pq.read_table(io.BytesIO(bucket.blob(names[1]).download_as_bytes())).to_pylist()
    assert row["probability_wet_day"] == pytest.approx(chance(40, 3), abs=1e-6)


def test_a_job_that_fails_on_dataflow_publishes_nothing_and_is_one_sentence(bucket, on_dataflow):
    service, command = on_dataflow
    service.states = ["JOB_STATE_FAILED"]
    service.messages = [{"messageText": "Traceback ...\nPredictionError: no such column"}]
    result = command()
    assert result.exit_code == 1
    assert "error: job j failed: PredictionError: no such column; see https://" in result.stderr
    assert list(bucket.list_blobs(prefix="out/")) == []


def test_a_model_or_a_bucket_that_is_not_there_is_one_sentence(bucket, on_dataflow):
    service, command = on_dataflow
    for blob in bucket.list_blobs(prefix="serving/"):
        blob.delete()
    result = command()
    assert result.exit_code == 1
    assert f"error: {GS}/serving: no pushed model here" in result.stderr
    result = command("--input", "gs://no-bucket/*.csv")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert service.jobs == []


def test_an_interrupt_cancels_the_job(on_dataflow, monkeypatch, capfd):
    def interrupt():
        raise KeyboardInterrupt

    service, command = on_dataflow
    service.states = ["JOB_STATE_RUNNING"]
    monkeypatch.setattr("cloud.dataflow.time.sleep", lambda _: interrupt())
    result = command()
    assert result.exit_code != 0
    assert "job j: asked to stop" in capfd.readouterr().err
    assert service.requests[-1] == ("PUT", "/v1b3/projects/my-project/locations/europe-west1/jobs/job-1")


@pytest.mark.parametrize(
    ("option", "place"), [("--model", "serving"), ("--input", "days.csv"), ("--output", "out")]
)
def test_what_workers_on_dataflow_cannot_reach_is_refused_by_name(tmp_path, option, place):
    given = {"--model": f"{GS}/m", "--input": f"{GS}/a.csv", "--output": f"{GS}/out", option: place}
    flat = [part for pair in given.items() for part in pair]
    result = run("predict", *flat, "--dataflow", settings_file(tmp_path))
    assert result.exit_code == 2
    assert f"{option} {place}: with --dataflow it has to be where the workers can reach it" in result.stderr


@pytest.mark.parametrize("arguments", [("--query",), ("--input", "gs://b/a.csv", "--beam", "--x")])
def test_what_does_not_go_with_dataflow_is_refused(tmp_path, arguments):
    result = run("predict", *arguments, "--dataflow", settings_file(tmp_path))
    assert result.exit_code == 2
    assert "--dataflow goes neither with --query nor with --beam" in result.stderr
