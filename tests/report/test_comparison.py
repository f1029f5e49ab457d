"""Runs side by side: what counts as a difference, and the page as a browser meets it."""

from __future__ import annotations

import itertools
import re

import pytest
from lxml import html

from gates.evidence import Estimate
from report.comparison import ABSENT, ComparedRun, Comparison, Training, render
from report.page import Epoch


def training(values: list[float], epoch_rows: int = 1000) -> Training:
    best = max(range(len(values)), key=values.__getitem__)
    epochs = tuple(
        Epoch(n + 1, {"auc": v + 0.01, "val_auc": v, "val_loss": 1 - v}, n == best)
        for n, v in enumerate(values)
    )
    return Training(epochs, "val_auc", 12.5, 8498, epoch_rows)


def run(run_id: str, **fields) -> ComparedRun:
    given = {"folder": f"/out/runs/{run_id}", "pipeline": "shop", "started_at": "2026-01-01T00:00:00+00:00"}
    return ComparedRun(run_id, **{**given, "state": "succeeded", "outcome": "pushed as version 1", **fields})


SETTINGS = {"train.epochs": 3, "train.seed": 1, "train.cluster": None, "model.hidden_units": [64, 32]}
ONE = run(
    "20260101T000000-ab12",
    parameters=SETTINGS,
    rows={"train": 100, "test": 50},
    fingerprint="f" * 64,
    estimates=(Estimate("model", "auc", 0.7, 0.65, 0.75, 50),),
    metrics={"auc": 0.71, "recall": 0.5},
    training=training([0.6, 0.7, 0.65]),
    model_bytes=2_000_000,
)
OTHER = run(
    "20260102T000000-cd34",
    parameters={
        "train.epochs": 5,
        "train.seed": 1,
        "train.cluster.workers": 2,
        "model.hidden_units": [64, 32],
    },
    rows={"train": 100, "test": 50},
    fingerprint="f" * 64,
    metrics={"auc": 0.69},
    training=training([0.5, 0.6]),
)
FAILED = run(
    "20260103T000000-ef56", state="failed", outcome="failed in DataGate: <b>bad</b>", parameters=None
)


def differing(*runs: ComparedRun) -> dict[str, tuple[str, ...]]:
    return {row.name: row.values for row in Comparison(runs).parameters}


def test_only_what_differs_is_listed_and_the_rest_is_counted():
    comparison = Comparison((ONE, OTHER))
    assert differing(ONE, OTHER) == {"train.epochs": ("3", "5"), "train.cluster.workers": (ABSENT, "2")}
    assert comparison.unchanged == 2


def test_a_setting_that_an_older_run_did_not_know_differs_only_once_it_is_set():
    newer = run("20260104T000000-0001", parameters={**SETTINGS, "train.tpu": None})
    assert differing(ONE, newer) == {}
    newest = run("20260104T000000-0002", parameters={**SETTINGS, "train.tpu": "local"})
    assert differing(ONE, newest) == {"train.tpu": (ABSENT, "local")}


def test_a_run_that_kept_no_settings_makes_none_differ():
    assert differing(ONE, FAILED) == {}
    partly = run("20260104T000000-0003", parameters={"model.hidden_units": [8]})
    assert differing(ONE, partly) == {"model.hidden_units": ("[64, 32]", "[8]")}


def test_an_estimate_with_its_interval_stands_before_the_bare_metric():
    rows = {row.name: row.values for row in Comparison((ONE, OTHER)).metrics}
    assert rows == {"auc": ("0.7000 (0.6500 to 0.7500)", "0.6900"), "recall": ("0.5000", ABSENT)}


def test_curves_of_epochs_of_different_lengths_go_by_rows_seen():
    virtual = run("20260104T000000-0004", training=training([0.6, 0.7], epoch_rows=400))
    assert [p.place for p in Comparison((ONE, OTHER)).curves("val_auc")["cd34"]] == [1, 2]
    assert [p.place for p in Comparison((ONE, virtual)).curves("val_auc")["0004"]] == [400, 800]


def test_runs_whose_ids_end_alike_are_still_told_apart():
    twin = run("20260109T000009-ab12")
    assert len(set(Comparison((ONE, twin)).short_ids.values())) == 2


@pytest.fixture(scope="module")
def page():
    return html.document_fromstring(
        render(Comparison((ONE, OTHER, FAILED), ("<i>Mind</i>",)), "tensorboard --logdir x")
    )


def test_every_figure_of_a_curve_is_in_a_table_too_and_the_picture_says_what_it_shows(page):
    pictures = page.xpath("//svg")
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.get("role") == "img"
        assert "ab12, cd34" in picture.get("aria-label")
        numbers = picture.xpath("ancestor::div[1]//details//tbody/tr")
        assert len(numbers) == 5
    kept = page.xpath("//details[summary='val_auc in numbers']//tr[@class='chosen']")
    assert [row.text_content().split()[0] for row in kept] == ["ab12", "cd34"]


def test_it_is_whole_in_itself_and_what_runs_wrote_stays_text(page):
    text = html.tostring(page, encoding="unicode")
    assert page.xpath("//script | //img | //link | //*[@src]") == []
    assert all(target.startswith("#") for target in page.xpath("//@href"))
    assert re.search(r"url\((?!#)", text) is None
    assert "&lt;b&gt;bad&lt;/b&gt;" in text
    assert "&lt;i&gt;Mind&lt;/i&gt;" in text


def test_it_can_be_used_by_keyboard_and_headings_do_not_skip(page):
    assert page.xpath("//a")[0].get("href") == "#main"
    assert len(page.xpath("//main")) == 1
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in page.xpath("//@href")} | set(page.xpath("//@aria-labelledby")) <= set(
        ids
    )
    assert all(box.get("tabindex") == "0" for box in page.xpath("//div[@class='scroll']"))
    levels = [int(heading.tag[1]) for heading in page.xpath("//h1|//h2|//h3")]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_runs_that_never_trained_are_said_to_have_no_curves():
    written = render(Comparison((FAILED, run("20260104T000000-0005", state="failed"))))
    assert "None of these runs trained a network." in written
    assert "None of these runs was evaluated." in written
    assert "<svg" not in written
