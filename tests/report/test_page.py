from dataclasses import replace

from gates.verdict import Verdict
from report.page import Page, SliceRow, Step, render

PAGE = Page(
    pipeline="shop",
    run_id="20260101T000000-ab12",
    state="failed",
    started_at="2026-01-01T00:00:00+00:00",
    ended_at=None,
    steps=(Step("DataGate", "failed", 1.25, error="column <age> is missing"),),
    verdicts=(Verdict("auc", False, "0.5", "at least 0.6", "no better than chance"),),
    slices=(SliceRow("all rows", {"auc": 0.51234}, {"auc": 0.7}),),
)


def test_the_page_shows_state_verdict_metric_champion_and_error():
    html = render(PAGE)
    for text in ("failed", "no better than chance", "0.5123", "champion 0.7000", "Nothing was pushed"):
        assert text in html


def test_text_from_the_data_cannot_become_markup():
    html = render(PAGE)
    assert "column &lt;age&gt; is missing" in html
    assert "<age>" not in html


def test_the_page_needs_no_network():
    html = render(replace(PAGE, pushed="serving/1"))
    assert "http" not in html
    assert "src=" not in html
