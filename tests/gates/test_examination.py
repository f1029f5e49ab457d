"""All measures together, for each kind of label."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gates import evidence
from gates.baselines import Baseline
from gates.examination import Examination, Subject, Validation, examine
from gates.intervals import Bootstrap
from gates.model import Contest
from gates.overrides import FINAL
from gates.settings import FairnessSettings, ModelGateSettings
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind
from tests.gates.linear_model import Asked

ROWS = 2000
RESAMPLES = Bootstrap.draw(ROWS, 100, 0.95)
COLUMNS = pd.DataFrame(
    {"size": np.random.default_rng(0).normal(size=ROWS), "city": np.tile(["Rome", "Oslo"], ROWS // 2)}
)
LABELS = {
    LabelKind.BINARY: Label("sold", DType.BYTES, LabelKind.BINARY, ("no", "yes")),
    LabelKind.MULTICLASS: Label("color", DType.BYTES, LabelKind.MULTICLASS, ("red", "green", "blue")),
    LabelKind.REGRESSION: Label("price", DType.FLOAT, LabelKind.REGRESSION),
}


class Answers(Asked):
    """A model of any kind of label that follows the size."""

    def __init__(self, columns: pd.DataFrame, kind: LabelKind) -> None:
        super().__init__(columns)
        self._kind = kind

    def _answer(self, rows: pd.DataFrame) -> np.ndarray:
        size = rows["size"].to_numpy(np.float64)
        if self._kind is LabelKind.REGRESSION:
            return 3 * size
        logits = np.outer(2 * size, [-1, 1] if self._kind is LabelKind.BINARY else [-1, 0, 1])
        return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


def examined(kind: LabelKind, broken_validation: int = 0, **settings) -> Examination:
    random = np.random.default_rng(1)
    asked = Answers(COLUMNS, kind)
    ours = asked.plainly()
    if kind is LabelKind.REGRESSION:
        truth = ours + random.normal(size=ROWS)
        naive = np.zeros(ROWS)
    else:
        truth = (ours.cumsum(axis=1) < random.random(ROWS)[:, None]).sum(axis=1).astype(float)
        naive = np.full_like(ours, 1 / ours.shape[1])
    contest = Contest(LABELS[kind], truth, ours, (Baseline("majority", "constant", naive),), ours)
    features = FeatureSet((Feature("size", DType.FLOAT, Kind.NUMERIC),), LABELS[kind])
    on_validation = ours.copy()
    on_validation[:broken_validation] = np.nan
    subject = Subject(contest, COLUMNS, Validation(truth, on_validation), asked, truth, features)
    return examine(
        subject, ModelGateSettings(must_beat=("majority",), **settings), [["city"], ["size"]], RESAMPLES
    )


@pytest.mark.parametrize("kind", list(LabelKind))
def test_a_good_model_passes_everything_and_its_figures_survive_their_file(kind: LabelKind, tmp_path: Path):
    found = examined(kind)
    assert [verdict.name for verdict in found.verdicts if not verdict.passed] == []
    names = [verdict.name for verdict in found.verdicts]
    assert len(set(names)) == len(names)
    assert found.evidence is not None
    evidence.write(found.evidence, tmp_path)
    assert evidence.read(evidence.ModelEvidence, tmp_path) == found.evidence
    assert {one.subject for one in found.evidence.estimates} == {"model", "champion", "majority"}
    assert {one.slice.partition(" = ")[0] for one in found.evidence.estimates} == {"", "city", "size"}
    assert len(found.evidence.calibration) == 10
    assert [one.column for one in found.evidence.importance] == ["size"]


def test_a_binary_label_has_curves_and_a_threshold():
    found = examined(LabelKind.BINARY, fairness=(FairnessSettings(column="city", max_gap=0.1),)).evidence
    assert found is not None
    assert [curve.subject for curve in found.roc] == ["model", "champion"]
    assert found.threshold in [one.threshold for one in found.confusion]
    assert set(found.fairness[0].by_group) == {"Rome", "Oslo"}


def test_several_classes_have_a_matrix_of_what_was_taken_for_what():
    found = examined(LabelKind.MULTICLASS).evidence
    assert found is not None
    assert np.sum(found.confusion_matrix) == ROWS
    assert (found.roc, found.confusion, found.threshold) == ((), (), None)


def test_the_most_confidently_wrong_rows_come_first_with_what_was_true_and_said():
    found = examined(LabelKind.BINARY).evidence
    assert found is not None
    scores = [one.score for one in found.wrong]
    assert len(scores) == 20
    assert scores == sorted(scores, reverse=True)
    assert all(one.truth != one.answer for one in found.wrong)


def test_of_a_number_the_largest_errors_come_first():
    found = examined(LabelKind.REGRESSION).evidence
    assert found is not None
    errors = [abs(float(one.truth) - one.score) for one in found.wrong]
    assert errors == pytest.approx(sorted(errors, reverse=True), abs=1e-3)
    assert found.calibration_error is None


def test_an_answer_on_validation_that_is_no_number_is_refused_and_hides_no_other_check():
    fairness = (FairnessSettings(column="city", max_gap=0.1),)
    assert any(v.name.startswith("fairness") for v in examined(LabelKind.BINARY, fairness=fairness).verdicts)
    found = examined(LabelKind.BINARY, broken_validation=1, fairness=fairness)
    assert [v.name for v in found.verdicts if not v.passed] == ["finite answers on validation"]
    assert found.verdicts[-1].name in FINAL
