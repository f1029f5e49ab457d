"""Where a model is wrong on average: planted changes are named, good models are left alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from gates.evidence import Residuals
from gates.residuals import Answered, changed_columns, most_changed, residuals, tell_change, worst_bins
from schemas.features import DType, Label, LabelKind

ROWS = 6000
LABELS = {
    LabelKind.BINARY: Label("sold", DType.BYTES, LabelKind.BINARY, ("no", "yes")),
    LabelKind.MULTICLASS: Label("color", DType.BYTES, LabelKind.MULTICLASS, ("red", "green", "blue")),
    LabelKind.REGRESSION: Label("price", DType.FLOAT, LabelKind.REGRESSION),
}
COLUMNS = ("city", "size", "floor")


def answered(kind: LabelKind, split: str, seed: int, rows: int = ROWS) -> Answered:
    """A model that is right about everything that there is to know."""
    random = np.random.default_rng(seed)
    columns = pd.DataFrame(
        {
            "city": pd.Series(random.choice(["Rome", "Oslo", "Bonn"], rows), dtype="category"),
            "size": np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows)),
            "floor": random.integers(0, 4, rows).astype(float),
            "day": [f"2024-{1 + number * 12 // rows:02}-01 00:00:00" for number in range(rows)],
        }
    )
    score = columns["size"].fillna(0).to_numpy() + (columns["city"] == "Rome").to_numpy()
    if kind is LabelKind.REGRESSION:
        return Answered(split, columns, score + random.normal(size=rows), score)
    logits = np.outer(score, [-1, 1] if kind is LabelKind.BINARY else [-1, 0, 1])
    answers = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (answers.cumsum(axis=1) < random.random(rows)[:, None]).sum(axis=1).astype(float)
    return Answered(split, columns, truth, answers)


def flipped(rows: Answered, where: np.ndarray) -> Answered:
    """The rows with another truth in some of them."""
    last = rows.truth.max()
    return replace(rows, truth=np.where(where, last - rows.truth, rows.truth))


def looked_at(kind: LabelKind, test: Answered) -> Residuals:
    return residuals(LABELS[kind], test, answered(kind, "validation", 1), COLUMNS, "day", level=0.99)


@pytest.mark.parametrize("kind", list(LabelKind))
def test_a_model_that_is_right_is_left_alone(kind: LabelKind) -> None:
    found = looked_at(kind, answered(kind, "test", 3))
    assert changed_columns(found) == ()
    assert worst_bins(found, 10) == []
    assert not any(one.is_away for answer in found.answers for one in answer.over_time)


@pytest.mark.parametrize("kind", list(LabelKind))
def test_the_column_with_one_value_whose_label_turned_is_named_first(kind: LabelKind) -> None:
    test = answered(kind, "test", 3)
    found = looked_at(kind, flipped(test, (test.columns["city"] == "Rome").to_numpy()))
    [changed, *others] = changed_columns(found)
    assert (changed.column, most_changed(changed).name) == ("city", "Rome")
    assert {column.column for column in others} <= {"city", "size"}  # Rome's label followed its size too
    assert "city relates to" in tell_change(found, changed)
    assert "where it is Rome" in tell_change(found, changed)


def test_a_number_that_turned_in_one_range_is_named_first() -> None:
    test = answered(LabelKind.BINARY, "test", 3)
    found = looked_at(LabelKind.BINARY, flipped(test, (test.columns["size"] > 1.3).to_numpy()))
    changed = changed_columns(found)[0]
    assert changed.column == "size"
    low, _, _ = most_changed(changed).name.partition(" to ")
    assert float(low) > 1.0


def test_a_shift_of_all_rows_is_the_labels_and_no_columns() -> None:
    kind = LabelKind.REGRESSION
    test = answered(kind, "test", 3)
    found = looked_at(kind, replace(test, truth=test.truth + 0.5))
    assert changed_columns(found) == ()
    assert found.answers[0].all_rows.mean == pytest.approx(0.5, abs=0.1)
    assert len(worst_bins(found, 50)) == sum(len(column.bins) for column in found.columns)


def test_a_shift_in_time_shows_when_it_began() -> None:
    test = answered(LabelKind.BINARY, "test", 3)
    late = (test.columns["day"] >= "2024-10").to_numpy()
    found = looked_at(LabelKind.BINARY, replace(test, truth=np.where(late, 1.0, test.truth)))
    away = [(one.split, one.name) for one in found.answers[0].over_time if one.is_away]
    assert away == [("test", "2024-10-01"), ("test", "2024-11-01"), ("test", "2024-12-01")]


def test_rare_values_are_shown_and_not_judged() -> None:
    test = answered(LabelKind.BINARY, "test", 3)
    rare = test.columns.assign(city=["Faro"] * 5 + ["Rome"] * (ROWS - 5))
    found = looked_at(LabelKind.BINARY, replace(test, columns=rare))
    [city] = [column for column in found.columns if column.column == "city"]
    [faro] = [one for one in city.bins if one.name == "Faro"]
    assert (faro.residual.rows, faro.residual.low, faro.p_value, faro.is_away) == (5, None, None, False)
    assert faro.earlier is None


def test_a_value_without_any_positive_row_is_not_sure_to_be_wrong() -> None:
    rows = 60
    columns = pd.DataFrame({"city": ["Rome"] * rows})
    answers = np.tile([0.98, 0.02], (rows, 1))
    test = Answered("test", columns, np.zeros(rows), answers)
    found = residuals(LABELS[LabelKind.BINARY], test, None, ["city"])
    assert worst_bins(found, 5) == []
    assert found.earlier_split is None


@pytest.mark.parametrize("kind", list(LabelKind))
def test_the_figures_survive_json(kind: LabelKind, tmp_path: Path) -> None:
    test = answered(kind, "test", 3, rows=400)
    found = looked_at(kind, test)
    adapter = TypeAdapter(Residuals)
    assert adapter.validate_json(adapter.dump_json(found)) == found
