import pytest

from cli.outcome import decisions, figures, idle
from gates.settings import Override
from pipeline.summary_file import Summary

WORDS = "color has drifted; let pass by ann: the shop sells green now"


def override(**fields):
    return Override(
        **{"check": "drift of color*", "owner": "ann", "reason": "the shop sells green now", **fields}
    )


def test_counts_are_whole_numbers_and_metrics_are_not():
    told = list(figures(Summary(metrics={"example_count": 82609.0, "auc": 0.70104, "precision": 1.0})))
    assert [line.split()[1] for line in told] == ["82,609", "0.7010", "1.0000"]


def test_warnings_overrides_and_refusals_are_told_apart():
    summary = Summary(refusals=("too few rows",), warnings=("size drifts",), overridden=(WORDS,))
    assert list(decisions(summary)) == [
        "warned: size drifts",
        f"overridden: {WORDS}",
        "refused: too few rows",
    ]


@pytest.mark.parametrize(
    ("fields", "overridden", "told"),
    [
        ({}, (WORDS,), None),
        ({}, (), "was not needed: no check of that name refused"),
        ({"until": "2020-01-31"}, (), "ran out on 2020-01-31"),
    ],
)
def test_an_override_that_let_nothing_pass_is_told(fields, overridden, told):
    found = list(idle([override(**fields)], Summary(overridden=overridden)))
    assert told is None or told in found[0]
    assert bool(found) == (told is not None)
