"""What is said of the answers of a fresh process."""

from dataclasses import replace

import numpy as np
import pytest

from gates.serving import Answered, Fallen, Served, judge_serving, signature_figures, unknown_rows
from gates.settings import ServingCheckSettings
from gates.verdict import Outcome
from schemas.features import DType, Label, LabelKind
from schemas.probe import Probe

ROWS = 40
COLORS = Label("color", DType.BYTES, LabelKind.MULTICLASS, ("red", "green", "blue"))
SOLD = Label("sold", DType.INT, LabelKind.BINARY, ("0", "1"))
PRICE = Label("price", DType.FLOAT, LabelKind.REGRESSION)
SETTINGS = ServingCheckSettings()


def scores_of(label):
    random = np.random.default_rng(0)
    if label.kind is LabelKind.REGRESSION:
        return 1000.0 * random.normal(size=(ROWS, 1))
    return random.dirichlet(np.ones(len(label.classes)), ROWS)


def probe_of(label):
    size = np.random.default_rng(1).normal(size=(ROWS, 1)).astype(np.float32)
    return Probe(
        (b"row",) * ROWS, {"size_scaled": size, "shop_id": np.ones((ROWS, 1), np.int64)}, scores_of(label)
    )


def outputs_of(label, scores):
    scores = scores.astype(np.float32)
    if label.kind is LabelKind.REGRESSION:
        return {"prediction": scores}
    outputs = {"scores": scores, "classes": np.tile([name.encode() for name in label.classes], (ROWS, 1))}
    return outputs | ({"probability": scores[:, 1:]} if label.kind is LabelKind.BINARY else {})


def served_of(label, **changed):
    """A process in which all is well but for the signatures in `changed`."""
    probe = probe_of(label)
    scoring = Answered(outputs_of(label, probe.scores), "", 1.0, 2.0, 50_000.0)
    signatures = {
        "serving_default": scoring,
        "serving_raw": scoring,
        "transform_features": replace(scoring, outputs=probe.columns),
    } | changed
    return Served(1.5, {name: answered for name, answered in signatures.items() if answered})


def judge(label, served, settings=SETTINGS):
    return {verdict.name: verdict for verdict in judge_serving(served, probe_of(label), label, settings)}


def refused(label, served, settings=SETTINGS):
    """The reasons of what is refused, by name."""
    return {name: v.reason for name, v in judge(label, served, settings).items() if not v.passed}


def with_scores(label, scores):
    return Answered(outputs_of(label, scores), "", 1.0, 2.0, 50_000.0)


@pytest.mark.parametrize("label", [SOLD, COLORS, PRICE], ids=lambda label: label.kind)
def test_a_model_that_answers_as_in_memory_passes_every_check(label):
    verdicts = judge(label, served_of(label))
    assert set(verdicts) == {
        "load of the model",
        *(
            f"{check} {name}"
            for check in ("signature", "answers of", "latency of")
            for name in ("serving_default", "serving_raw", "transform_features")
        ),
        "agreement of serving_default and serving_raw",
    }
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASSED}


@pytest.mark.parametrize("label", [SOLD, COLORS], ids=lambda label: label.kind)
def test_two_classes_with_each_others_scores_are_named(label):
    scores = scores_of(label)
    scores[:, [0, 1]] = scores[:, [1, 0]]
    reasons = refused(label, served_of(label, serving_default=with_scores(label, scores)))
    first, second = label.classes[:2]
    assert f"scores of class {first} and {second} are swapped" in reasons["answers of serving_default"]
    assert "agreement of serving_default and serving_raw" in reasons


def test_three_classes_that_moved_in_a_circle_are_named():
    scores = np.roll(scores_of(COLORS), 1, axis=1)
    reason = refused(COLORS, served_of(COLORS, serving_raw=with_scores(COLORS, scores)))[
        "answers of serving_raw"
    ]
    assert "those of blue, red, green stand in the places of red, green, blue" in reason


def test_names_of_classes_in_another_order_are_refused():
    answered = with_scores(SOLD, scores_of(SOLD))
    answered = replace(
        answered, outputs={**answered.outputs, "classes": answered.outputs["classes"][:, ::-1]}
    )
    reason = refused(SOLD, served_of(SOLD, serving_default=answered))["answers of serving_default"]
    assert "names its scores 1, 0 where the label's classes are 0, 1" in reason


def test_the_probability_has_to_be_that_of_the_positive_class():
    answered = with_scores(SOLD, scores_of(SOLD))
    answered = replace(
        answered, outputs={**answered.outputs, "probability": answered.outputs["scores"][:, :1]}
    )
    reason = refused(SOLD, served_of(SOLD, serving_default=answered))["answers of serving_default"]
    assert "probability is not the score of class 1" in reason


def test_a_graph_that_answers_otherwise_is_named_with_its_worst_row():
    scores = scores_of(SOLD)
    scores[[3, 7], 1] += [0.01, 0.2]
    reason = refused(SOLD, served_of(SOLD, serving_default=with_scores(SOLD, scores)))[
        "answers of serving_default"
    ]
    assert "the exported graph answers otherwise than the network that was trained" in reason
    assert "row 7" in reason
    assert "for class 1 (2 of 40 rows differ" in reason


def test_a_column_that_is_prepared_otherwise_is_named():
    columns = dict(probe_of(SOLD).columns)
    columns["size_scaled"] = columns["size_scaled"] * 1.609
    answered = Answered(columns, "", 1.0, 2.0, 9.0)
    reason = refused(SOLD, served_of(SOLD, transform_features=answered))["answers of transform_features"]
    assert "prepares size_scaled otherwise than the one that was trained with" in reason


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_answers_that_are_no_numbers_are_refused(value, word):
    scores = scores_of(PRICE)
    scores[5] = value
    reason = refused(PRICE, served_of(PRICE, serving_raw=with_scores(PRICE, scores)))[
        "answers of serving_raw"
    ]
    assert f"serving_raw answers {word} to 1 of 40 rows, first to row 5" in reason


def test_rounding_of_large_predictions_is_no_difference():
    scores = scores_of(PRICE) * (1.0 + 1e-6)
    assert not refused(PRICE, served_of(PRICE, serving_raw=with_scores(PRICE, scores)))
    assert refused(PRICE, served_of(PRICE, serving_raw=with_scores(PRICE, scores * 1.001)))


def test_a_missing_signature_is_named_with_those_there_are():
    reasons = refused(SOLD, served_of(SOLD, serving_raw=None))
    assert set(reasons) == {"signature serving_raw"}
    assert "no signature serving_raw (it has serving_default, transform_features)" in next(
        iter(reasons.values())
    )


def test_a_signature_that_fails_is_refused_with_its_error():
    broken = Answered({}, "InvalidArgumentError: no such table")
    reasons = refused(SOLD, served_of(SOLD, serving_default=broken))
    assert set(reasons) == {"answers of serving_default"}
    assert "InvalidArgumentError: no such table" in reasons["answers of serving_default"]


def test_an_output_that_is_missing_is_named():
    outputs = outputs_of(SOLD, scores_of(SOLD))
    del outputs["scores"]
    reason = refused(SOLD, served_of(SOLD, serving_default=Answered(outputs)))["answers of serving_default"]
    assert "gives classes, probability and no scores" in reason


def test_slow_answers_and_slow_loading_are_refused():
    settings = ServingCheckSettings(max_p99_milliseconds=1.9, max_load_seconds=1.0)
    reasons = refused(SOLD, served_of(SOLD), settings)
    assert "serving_default is too slow: 2 ms" in reasons["latency of serving_default"]
    assert "loads in 1.5 s, longer than 1 s" in reasons["load of the model"]


@pytest.mark.parametrize(
    ("fallen", "name"),
    [(Fallen("", "saved_model.pb is missing"), "load of the model"),
     (Fallen("serving_raw", "killed by SIGSEGV"), "answers of serving_raw")],
)  # fmt: skip
def test_a_process_that_ended_is_a_refusal_with_its_last_words(fallen, name):
    assert fallen.words in refused(SOLD, fallen)[name]


def test_transformed_rows_that_no_raw_row_becomes_are_counted():
    assert unknown_rows(0, 256).passed
    assert "3 of 256 transformed rows" in unknown_rows(3, 256).reason


def test_only_signatures_that_score_have_a_difference():
    figures = {f.name: f for f in signature_figures(served_of(SOLD), probe_of(SOLD), SOLD)}
    assert figures["serving_raw"].max_difference == pytest.approx(0.0, abs=1e-6)
    assert figures["transform_features"].max_difference is None
