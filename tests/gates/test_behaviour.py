import numpy as np
import pandas as pd
import pytest

from gates.behaviour import judge_behaviour
from gates.settings import Direction, Invariance, MinimumFunctionality, NamedRow
from schemas.features import DType, Label, LabelKind
from tests.gates.linear_model import Asked

SOLD = Label("sold", DType.BYTES, LabelKind.BINARY, ("no", "yes"))
RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(
    {
        "size": RANDOM.normal(size=500),
        "floor": RANDOM.integers(0, 9, 500).astype(float),
        "color": RANDOM.choice(["red", "blue"], 500),
    }
)


def test_a_column_that_matters_although_it_must_not_is_refused_and_rows_are_shown():
    test = Invariance(kind="invariance", name="the floor does not matter", column="floor")
    found = judge_behaviour(test, SOLD, Asked(ROWS, lambda rows: rows["size"] + rows["floor"]))
    assert not found.verdict.passed
    assert found.verdict.name == "behaviour the floor does not matter"
    assert "the model reads floor, which must not matter" in found.verdict.reason
    assert len(found.result.failing) == 10
    worst = found.result.failing[0]
    assert worst["floor"] != worst["changed to"]
    assert float(worst["before"]) != float(worst["after"])


def test_a_column_that_the_model_does_not_read_changes_nothing():
    test = Invariance(kind="invariance", name="floor", column="floor")
    found = judge_behaviour(test, SOLD, Asked(ROWS))
    assert found.verdict.passed
    assert (found.verdict.figure, found.result.failing) == ("0", ())


@pytest.mark.parametrize(
    ("slope", "expect", "passed"),
    [
        (1.0, "increase", True),
        (1.0, "not_decrease", True),
        (1.0, "decrease", False),
        (1.0, "not_increase", False),
        (-1.0, "increase", False),
        (-1.0, "not_increase", True),
        (0.0, "increase", False),
        (0.0, "not_increase", True),
        (0.0, "not_decrease", True),
    ],
)
def test_a_direction_is_that_of_the_mean_score(slope, expect, passed):
    test = Direction(kind="direction", name="size", column="size", expect=expect, add=1.0)
    found = judge_behaviour(test, SOLD, Asked(ROWS, lambda rows: slope * rows["size"]))
    assert found.verdict.passed is passed
    assert bool(found.result.failing) is (slope != 0 and not passed)


def test_a_value_is_put_in_place_of_all_and_what_is_missing_stays_so_under_an_addition():
    rows = ROWS.assign(size=ROWS["size"].where(ROWS.index > 99))
    asked = Asked(rows, lambda table: table["size"].astype(float).isna() * 5.0)
    fill = Direction(kind="direction", name="a", column="size", expect="decrease", set=1.0)
    assert judge_behaviour(fill, SOLD, asked).verdict.passed
    add = Direction(kind="direction", name="b", column="size", expect="not_decrease", add=1.0)
    assert judge_behaviour(add, SOLD, asked).verdict.figure == "+0"


def test_named_rows_that_are_answered_wrong_are_shown_with_what_was_expected():
    rows = (
        NamedRow(values={"size": 3.0}, expect="yes", min=0.9),
        NamedRow(values={"size": -3.0}, expect="yes"),
        NamedRow(values={"size": 0.0, "color": "red"}, max=0.4),
    )
    found = judge_behaviour(
        MinimumFunctionality(kind="rows", name="plain cases", rows=rows), SOLD, Asked(ROWS)
    )
    assert found.verdict.figure == "1 of 3"
    assert [row["fault"] for row in found.result.failing] == [
        "says no with 0.953, must say yes",
        "gives 0.5, must give at most 0.4",
    ]
    assert found.result.failing[1]["color"] == "red"
