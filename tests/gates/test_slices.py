import numpy as np
import pandas as pd
import pytest

from gates.evidence import Estimate
from gates.intervals import Bootstrap
from gates.settings import SliceSettings
from gates.slices import judge_slices, slices_by, values_of
from gates.verdict import Outcome, Verdict
from schemas.features import LabelKind

ROWS = 6000
RANDOM = np.random.default_rng(0)
COLUMNS = pd.DataFrame(
    {
        "city": pd.Categorical(RANDOM.choice(["Rome", "Oslo", "Bern"], ROWS, p=[0.6, 0.38, 0.02])),
        "floor": RANDOM.integers(0, 4, ROWS).astype(float),
        "size": RANDOM.normal(50, 10, ROWS),
    }
)
TRUTH = (RANDOM.random(ROWS) < 0.4).astype(float)
IN_OSLO = np.asarray(COLUMNS["city"] == "Oslo")
RESAMPLES = Bootstrap.draw(ROWS, 100, 0.95)
SETTINGS = SliceSettings(min_rows=500, max_gap=0.1)


def answers(noise: np.ndarray | float, seed: int) -> np.ndarray:
    positive = 1 / (1 + np.exp(1.5 - 3 * (TRUTH + np.random.default_rng(seed).normal(0, noise, ROWS))))
    return np.stack([1 - positive, positive], axis=1)


BAD_IN_OSLO = answers(np.where(IN_OSLO, 30.0, 0.6), 1)


def judged(models: dict[str, np.ndarray], by=("city",)) -> tuple[dict[str, Verdict], tuple[Estimate, ...]]:
    found = judge_slices(LabelKind.BINARY, TRUTH, models, list(slices_by(COLUMNS, by)), SETTINGS, RESAMPLES)
    return {verdict.name: verdict for verdict in found.verdicts}, found.estimates


def test_a_model_good_overall_and_bad_on_one_slice_is_refused_by_the_slices_name():
    verdicts, _ = judged({"model": BAD_IN_OSLO, "linear": answers(1.0, 2)})
    assert {name for name, verdict in verdicts.items() if not verdict.passed} == {"slice city = Oslo"}
    assert "can be served better: linear reaches" in verdicts["slice city = Oslo"].reason


def test_a_slice_that_is_hard_for_everybody_is_warned_of_and_not_refused():
    others = {"linear": answers(np.where(IN_OSLO, 30.0, 1.0), 2)}
    verdicts, _ = judged({"model": BAD_IN_OSLO, **others})
    assert verdicts["slice city = Oslo"].outcome is Outcome.WARNED
    assert "it is hard" in verdicts["slice city = Oslo"].reason


def test_a_model_a_little_better_on_a_slice_that_is_hard_for_it_too_shows_nothing():
    others = {"champion": answers(np.where(IN_OSLO, 3.0, 0.6), 2)}
    verdicts, _ = judged({"model": BAD_IN_OSLO, **others})
    assert verdicts["slice city = Oslo"].outcome is Outcome.WARNED


def test_slices_that_differ_by_noise_pass():
    for seed in range(10):
        verdicts, _ = judged({"model": answers(0.8, seed), "linear": answers(0.7, 50)}, ("city", "floor"))
        assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASSED}


def test_a_small_slice_is_shown_and_not_judged():
    verdicts, estimates = judged({"model": answers(0.6, 1)})
    assert "slice city = Bern" not in verdicts
    [auc] = [one for one in estimates if one.slice == "city = Bern" and one.metric == "auc"]
    assert auc.rows < 500
    assert not auc.is_judged


def test_crossed_columns_make_a_slice_of_each_pair_of_values():
    found = list(slices_by(COLUMNS, ["city", "floor"]))
    assert len(found) == 12
    assert sum(one.rows for one in found) == ROWS
    assert "city = Rome, floor = 3" in {one.name for one in found}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1.0, 2.5, np.nan], ["1", "2.5", "missing"]),
        (["a", None, "b"], ["a", "missing", "b"]),
        ([1386478800.0, 1386482400.0], ["1386478800", "1386482400"]),
    ],
)
def test_a_slice_is_named_by_its_value(values, names):
    assert values_of(pd.Series(values)).tolist() == names


def test_a_number_with_many_values_is_cut_into_quarters():
    found = values_of(COLUMNS["size"].where(COLUMNS.index > 99)).value_counts()
    assert len(found) == 5
    assert found["missing"] == 100
    assert found.drop("missing").between(1470, 1480).all()


def test_a_loss_is_held_against_the_whole_as_a_share_of_it():
    target = RANDOM.normal(0, 1, ROWS)
    near = target + RANDOM.normal(0, 1, ROWS)
    ours = target + (near - target) * np.where(IN_OSLO, 1.2, 1.0)
    found = judge_slices(
        LabelKind.REGRESSION,
        target,
        {"model": ours, "linear": near},
        list(slices_by(COLUMNS, ["city"])),
        SETTINGS,
        RESAMPLES,
    )
    verdicts = {verdict.name: verdict.passed for verdict in found.verdicts}
    assert verdicts == {"slice city = Rome": True, "slice city = Oslo": False}
