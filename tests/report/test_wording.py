import math
from dataclasses import replace

import pytest

from gates.verdict import Outcome, Verdict
from report import wording
from report.page import Gate, Page, Step
from tests.report import pages


def refusing(gate: str, *names: str) -> Page:
    verdicts = tuple(Verdict(name, Outcome.REFUSED, "0.4", "0.5", f"{name} is bad") for name in names)
    return replace(pages.stopped_early(), gates=(Gate(gate, verdicts),))


def test_a_pushed_model_is_told_with_its_version_and_what_to_read():
    told = wording.outcome(pages.binary())
    assert told.is_good
    assert told.sentence == "The model was pushed as version 7."
    assert "1 warning and 1 override" in told.advice[0]


def test_a_push_without_a_device_model_is_told_as_both():
    refusal = Verdict("device models", Outcome.REFUSED, "0 of 4", "at least 1", "none is inside the budget")
    page = pages.binary()
    told = wording.outcome(replace(page, gates=(*page.gates, Gate("DeviceModels", (refusal,)))))
    assert not told.is_good
    assert told.sentence == (
        "The model was pushed as version 7; then DeviceModels refused: none is inside the budget."
    )
    assert "The pushed version serves" in told.advice[0]
    assert not any("overrides" in advice for advice in told.advice)


@pytest.mark.parametrize("state", ["failed", "timed out"])
def test_a_push_after_which_a_component_failed_is_told_as_both(state):
    page = pages.binary()
    later = Step("DeviceModels", state, 3.0, error="DeviceModels: ConversionError: no kernel for Erf")
    told = wording.outcome(replace(page, state="failed", steps=(*page.steps, later)))
    assert not told.is_good
    assert told.sentence == (
        "The model was pushed as version 7; then DeviceModels failed: ConversionError: no kernel for Erf."
    )
    assert told.advice[0] == "The pushed version serves."
    assert any("logs/DeviceModels.log" in advice for advice in told.advice)
    assert "Nothing has to be done." not in told.advice


def test_refused_data_are_told_with_reason_number_and_the_name_for_an_override():
    told = wording.outcome(refusing("DataGate", "drift of fare in test", "rows in test"))
    assert not told.is_good
    assert told.sentence == (
        "Nothing was pushed, because DataGate refused: drift of fare in test is bad. And 1 more; they stand below."
    )
    assert any("schema diff" in advice for advice in told.advice)
    assert any(advice.endswith("drift of fare in test.") for advice in told.advice)


def test_a_loss_to_the_champion_names_the_way_to_replace_it():
    assert any(
        "--rebaseline" in advice
        for advice in wording.outcome(refusing("ModelGate", "against the champion")).advice
    )
    assert not any(
        "--rebaseline" in advice for advice in wording.outcome(refusing("ModelGate", "against linear")).advice
    )


def test_a_bound_of_the_evaluator_has_no_override():
    assert not any("overrides" in advice for advice in wording.outcome(refusing("Evaluator", "auc")).advice)


def test_a_failure_that_is_no_refusal_names_component_and_log():
    told = wording.outcome(pages.stopped_early())
    assert (
        told.sentence
        == "Nothing was pushed, because QueryExampleGen failed: DataError: column <age> is missing."
    )
    assert any("logs/QueryExampleGen.log" in advice for advice in told.advice)


def test_a_killed_run_is_not_called_a_failure():
    page = replace(pages.stopped_early(), state="running", steps=(Step("Transform", "pending", 0.0),))
    assert "was killed" in wording.outcome(page).sentence


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (math.nan, ""),
        (0.0, "0.0000"),
        (0.51234, "0.5123"),
        (3e-7, "3.00e-07"),
        (82609.0, "82,609"),
        (12.345, "12.35"),
        (1234.5, "1,234"),
    ],
)
def test_figures_have_the_digits_that_tell(value, shown):
    assert wording.figure(value) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, ""), (512, "512 B"), (1_234_567, "1.2 MB"), (986 * 10**6, "986 MB"), (3 * 10**9, "3.00 GB")],
)
def test_sizes_have_units(count, shown):
    assert wording.bytes_(count) == shown


def test_durations_have_minutes_when_they_are_long():
    assert wording.seconds(22.04) == "22.0 s"
    assert wording.seconds(139.7) == "2 min 20 s"


def test_a_small_share_is_not_rounded_to_nothing():
    assert wording.percent(0.0006) == "0.06%"
    assert wording.percent(0.0) == "0%"
