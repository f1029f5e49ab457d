"""`headworks predict` and `headworks table` from the command line to files."""

import json
import sqlite3

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from beam_jobs.endpoint import tf_serving_url
from beam_jobs.pushed import PushedModel
from cli.main import main
from tests.beam_jobs.prediction_service import saved_model
from tests.beam_jobs.prediction_service import serving as service
from tests.beam_jobs.pushed_model import chance, push


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


def test_too_many_bad_rows_exit_with_one_and_one_sentence(model, rows, tmp_path):
    result = run("predict", "--model", model, "--input", rows, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 of 2 rows got no prediction" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("--query", "--input", "x.csv"), ("--input", "x.csv", "--via", "endpoint")],
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
