"""A search in the report."""

import re
from dataclasses import replace

import pytest
from lxml import html

from report.page import render
from report.tuning import Axis, Search, Trial
from tests.report import pages

SEARCH = Search(
    "val_loss",
    is_larger_better=False,
    method="random",
    trials=(
        Trial("0", {"train.learning_rate": 1e-4, "model.hidden_units": "[64, 32]"}, 0.52, 3, 4.0),
        Trial(
            "1", {"train.learning_rate": 5e-2, "model.hidden_units": "[]"}, None, cause="loss is nan\nat once"
        ),
        Trial("2", {"train.learning_rate": 1e-2, "model.hidden_units": "[]"}, 0.48, 3, 3.0),
        Trial("3", {"train.learning_rate": 1e-3, "model.hidden_units": "[64, 32]"}, 0.50, 3, 4.0),
    ),
)


def section(search: Search | None) -> html.HtmlElement | None:
    document = html.document_fromstring(render(replace(pages.binary(), search=search)))
    found = document.xpath('//section[@aria-labelledby="tuning"]')
    return found[0] if found else None


def test_the_best_trial_stands_first_and_a_failed_one_with_its_cause():
    shown = section(SEARCH)
    assert shown is not None
    first, second = shown.xpath(".//table")
    assert [row.findtext("th") for row in first.xpath(".//tbody/tr")] == ["2", "3", "0"]
    assert re.sub(r"\s+", " ", second.text_content()).strip().endswith("loss is nan")


def test_the_picture_names_every_setting_and_marks_the_best_in_the_legend():
    shown = section(SEARCH)
    assert shown is not None
    texts = [text.text_content() for text in shown.xpath(".//svg//text")]
    assert {"train.learning_rate", "model.hidden_units", "val_loss", "[64, 32]", "[]"} <= set(texts)
    assert [text for text in texts if text.startswith("trial")] == ["trial 2", "trial 3", "trial 0"]


def test_a_run_without_a_search_and_one_whose_trials_all_failed_have_a_page():
    assert section(None) is None
    shown = section(replace(SEARCH, trials=SEARCH.trials[1:2]))
    assert shown is not None
    assert shown.xpath(".//svg") == []


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([1.0, 3.0, 2.0], (0.0, 1.0, 0.5)),
        ([1e-4, 1e-2, 1e-3], (0.0, 1.0, 0.5)),
        (["true", "false", "true"], (0.75, 0.25, 0.75)),
        ([0.1, 0.1], (0.5, 0.5)),
    ],
)
def test_an_axis_spreads_its_values_from_end_to_end(values, places):
    assert Axis.of("x", values).places == pytest.approx(places)
