from dataclasses import replace
from datetime import date

import pytest
from pydantic import ValidationError

from gates.overrides import apply, refusals
from gates.settings import Override
from gates.verdict import Outcome, Verdict

DRIFT = Verdict("drift of color in test", Outcome.REFUSED, "0.4", "at most 0.1", "color has drifted")
SIZE = Verdict("rows in train", Outcome.PASSED, "900", "at least 50", "the train split has 900 rows")
BY_ANN = Override(check="drift of color*", owner="ann", reason="the shop sells green now")


def test_a_refusal_that_somebody_answers_for_is_let_pass_with_name_and_reason():
    drift, size = apply([DRIFT, SIZE], [BY_ANN])
    assert (drift.outcome, drift.passed) == (Outcome.OVERRIDDEN, True)
    assert drift.reason == "color has drifted; let pass by ann: the shop sells green now"
    assert size == SIZE


def test_an_override_of_another_check_changes_nothing():
    assert apply([DRIFT], [Override(check="drift of size*", owner="ann", reason="known")]) == (DRIFT,)


def test_a_check_that_passes_is_not_marked_as_overridden():
    assert apply([SIZE], [Override(check="*", owner="ann", reason="known")]) == (SIZE,)


def test_a_refusal_says_by_which_name_it_can_be_answered_for():
    assert list(refusals([DRIFT, SIZE])) == ["color has drifted [check: drift of color in test]"]


def test_an_override_that_has_run_out_does_not_count():
    until = Override(check="*", owner="ann", reason="known", until="2026-03-31")
    assert apply([DRIFT], [until], date(2026, 3, 31))[0].passed
    assert apply([DRIFT], [until], date(2026, 4, 1)) == (DRIFT,)
    assert apply([DRIFT], [Override(check="*", owner="ann", reason="known", until="2020-01-01")]) == (DRIFT,)


@pytest.mark.parametrize("name", ["slice company = Taxi [old]", "slice size = [1, 2)", "a?", "a.b"])
def test_a_name_matches_itself_whatever_it_holds_and_only_a_star_stands_for_more(name):
    refused = replace(DRIFT, name=name)
    assert apply([refused], [Override(check=name, owner="ann", reason="known")])[0].passed
    assert apply([refused], [Override(check="slice [12]*", owner="ann", reason="known")]) == (refused,)


@pytest.mark.parametrize("name", ["finite answers", "load of the model"])
def test_nobody_can_answer_for_a_refusal_after_which_nothing_else_was_looked_at(name):
    final = replace(DRIFT, name=name)
    assert apply([final], [Override(check="*", owner="ann", reason="known")]) == (final,)
    assert list(refusals([final])) == ["color has drifted"]


@pytest.mark.parametrize(
    "fields", [{"owner": " "}, {"reason": ""}, {"check": ""}, {"until": "tomorrow"}, {"until": "2026-13-01"}]
)
def test_an_override_needs_an_owner_a_reason_and_a_real_date(fields):
    with pytest.raises(ValidationError):
        Override(**{"check": "a", "owner": "ann", "reason": "known", **fields})
