import numpy as np
import pandas as pd

from gates.importance import importances
from schemas.features import LabelKind
from tests.gates.linear_model import Asked


def test_what_the_model_reads_most_comes_first_and_what_it_ignores_costs_nothing():
    random = np.random.default_rng(0)
    columns = pd.DataFrame(random.normal(size=(3000, 3)), columns=["ignored", "little", "much"])
    truth = (columns["much"] + 0.3 * columns["little"] + random.normal(size=3000) > 0).to_numpy(float)
    asked = Asked(columns, lambda rows: rows["much"] + 0.3 * rows["little"])
    found = importances(LabelKind.BINARY, truth, asked, list(columns))
    assert [one.column for one in found] == ["much", "little", "ignored"]
    assert all(one.low <= one.loss <= one.high for one in found)
    assert found[0].loss > 5 * found[1].loss > 0
    assert found[2].loss == 0


def test_of_very_many_columns_only_the_first_are_shuffled():
    columns = pd.DataFrame(np.zeros((10, 70)), columns=[f"c{number}" for number in range(70)])
    asked = Asked(columns, lambda rows: rows["c0"])
    found = importances(LabelKind.BINARY, np.tile([0.0, 1.0], 5), asked, list(columns))
    assert {one.column for one in found} == {f"c{number}" for number in range(60)}
