"""A batch becomes predictions and dead letters, each row once, whatever the model does."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from beam_jobs.core import Answer, Direct, Scorer
from beam_jobs.encoding import probability_columns
from beam_jobs.pushed import PushedModel
from beam_jobs.rows import Batch, Outcome, PredictionError
from tests.beam_jobs.pushed_model import NUMBERS, chance, push

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def batch(*humidity, **columns):
    rows = range(1, len(humidity) + 1)
    days = [f"d{row}" for row in rows]
    given = {"day": days, "humidity": list(humidity), **columns}
    return Batch("days.jsonl", rows, given, raw=[f"row {row}".encode() for row in rows])


def predictions(outcome: Outcome) -> pa.RecordBatch:
    assert outcome.predictions is not None
    return outcome.predictions


@pytest.fixture(scope="module")
def loaded(pushed):
    return pushed.load()


class Scripted:
    """A model that answers what it is told to, and fails on rows that hold some bytes."""

    def __init__(self, pushed, scores=None, poison=b"\0never"):
        self.pushed = pushed
        self.poison = poison
        self.scores = scores
        self.calls = 0

    def predict(self, examples):
        self.calls += 1
        if any(self.poison in example for example in examples):
            raise PredictionError("the model fails: boom")
        return np.tile([0.25, 0.75], (len(examples), 1)) if self.scores is None else np.array(self.scores)


def test_a_row_of_the_output_says_key_answer_and_model(pushed, loaded):
    outcome = Scorer(pushed, Direct(loaded)).score(batch(80.0), NOON)
    assert outcome.dead_letters == []
    (row,) = predictions(outcome).to_pylist()
    assert row.pop("probability_wet_day") == pytest.approx(chance(80.0), abs=1e-6)
    assert row.pop("probability_dry") == pytest.approx(1 - chance(80.0), abs=1e-6)
    assert row == {
        "day": "d1",
        "prediction": "wet day",
        "model_version": 1,
        "run_id": "run-1",
        "predicted_at": NOON,
    }


def test_the_class_follows_the_threshold_of_the_manifest(pushed, loaded):
    strict = replace(pushed, threshold=0.95)
    outcome = Scorer(strict, Direct(loaded)).score(batch(80.0, 500.0), NOON)
    assert predictions(outcome)["prediction"].to_pylist() == ["dry", "wet day"]


def test_rows_keep_their_answers_when_others_between_them_fall_out(pushed, loaded):
    outcome = Scorer(pushed, Direct(loaded)).score(batch(1.0, "x", 300.0, None, 2.0), NOON)
    assert predictions(outcome)["day"].to_pylist() == ["d1", "d3", "d5"]
    expected = [chance(value) for value in (1.0, 300.0, 2.0)]
    assert predictions(outcome)["probability_wet_day"].to_pylist() == pytest.approx(expected, abs=1e-6)
    assert [letter.position for letter in outcome.dead_letters] == ["2", "4"]
    assert outcome.dead_letters[0].raw == b"row 2"


def test_a_row_on_which_the_model_fails_takes_no_other_along(pushed):
    model = Scripted(pushed, poison=b"venom")
    rows = batch(*[1.0] * 16, place=["p"] * 11 + ["venom"] + ["p"] * 4)
    outcome = Scorer(pushed, Direct(model)).score(rows, NOON)
    assert predictions(outcome).num_rows == 15
    assert [(letter.position, letter.reason) for letter in outcome.dead_letters] == [
        ("12", "the model fails: boom")
    ]
    assert model.calls == 1 + 2 * 4  # halved down to one row of 16


def test_an_answer_that_is_no_number_is_a_dead_letter(pushed):
    outcome = Scorer(pushed, Direct(Scripted(pushed, [[0.2, 0.8], [np.nan, 0.5]]))).score(
        batch(1.0, 2.0), NOON
    )
    assert predictions(outcome)["day"].to_pylist() == ["d1"]
    assert outcome.dead_letters[0].reason == "the model answers [nan, 0.5]"


def test_times_of_rows_go_with_their_rows(pushed):
    times = [NOON.replace(hour=hour) for hour in (1, 2, 3)]
    outcome = Scorer(pushed, Direct(Scripted(pushed))).score(batch(1.0, "x", 3.0), times)
    assert predictions(outcome)["predicted_at"].to_pylist() == [times[0], times[2]]


def test_failures_that_a_way_to_the_model_reports_become_dead_letters(pushed):
    class Far:
        def answer(self, examples):
            return Answer(np.full((len(examples), 2), 0.5), {1: "the endpoint answered 400"})

    outcome = Scorer(pushed, Far()).score(batch(1.0, 2.0, 3.0), NOON)
    assert predictions(outcome)["day"].to_pylist() == ["d1", "d3"]
    assert outcome.dead_letters[0].reason == "the endpoint answered 400"


def test_without_a_key_the_output_says_where_a_row_stood(pushed, loaded):
    outcome = Scorer(replace(pushed, key=()), Direct(loaded)).score(batch(1.0), NOON)
    assert predictions(outcome).schema.names[:2] == ["source", "position"]
    assert predictions(outcome).to_pylist()[0]["position"] == "1"


def test_a_model_for_numbers_predicts_one_number(tmp_path):
    push(tmp_path, features=NUMBERS, threshold=None)
    model = PushedModel.read(str(tmp_path))
    outcome = Scorer(model, Direct(model.load())).score(batch(50.0), NOON)
    assert predictions(outcome).schema.names == [
        "day",
        "prediction",
        "model_version",
        "run_id",
        "predicted_at",
    ]
    assert predictions(outcome)["prediction"].to_pylist() == [pytest.approx(0.5)]


def test_a_batch_without_a_usable_row_gives_dead_letters_only(pushed, loaded):
    outcome = Scorer(pushed, Direct(loaded)).score(batch("x", None), NOON)
    assert outcome.predictions is None
    assert len(outcome.dead_letters) == 2


def test_classes_that_look_alike_in_column_names_keep_columns_of_their_own():
    assert probability_columns(("a b", "a-b", "c")) == (
        "probability_a_b_0",
        "probability_a_b_1",
        "probability_c",
    )


def test_the_schema_of_the_output_is_that_of_its_rows(pushed, loaded):
    scorer = Scorer(pushed, Direct(loaded), ["hour"])
    assert predictions(scorer.score(batch(1.0, hour=[3]), NOON)).schema == scorer.schema
    assert scorer.schema.field("hour").type == pa.int64()
