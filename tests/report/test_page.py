"""The page as a browser and a person meet it: parsed, not searched for strings."""

import functools
import itertools
import re
from dataclasses import replace

import pytest
from lxml import html

from gates.evidence import Curve, ModelEvidence
from report.page import render
from tests.report import pages

FULL = {"binary": pages.binary, "several classes": pages.several, "numbers": pages.regression}
MAKERS = {**FULL, "stopped early": pages.stopped_early}
MEBIBYTE = 1024**2
OUTSIDE = re.compile(r"(https?:)?//[\w.]+\.\w+|@import|url\((?!#)", re.IGNORECASE)


@functools.cache
def rendered(kind: str) -> str:
    return render(MAKERS[kind]())


@pytest.fixture(scope="module", params=MAKERS)
def written(request) -> str:
    return rendered(request.param)


@pytest.fixture(scope="module")
def document(written):
    return html.document_fromstring(written)


@pytest.fixture(scope="module")
def binary():
    return html.document_fromstring(rendered("binary"))


def text(document) -> str:
    return " ".join(document.body.text_content().split())


def test_it_is_small_and_needs_no_network(written):
    assert len(written.encode()) < 3 * MEBIBYTE
    assert OUTSIDE.search(written) is None


def test_it_has_no_script_image_or_link_to_another_place(document):
    assert document.xpath("//script | //img | //link | //iframe | //*[@src]") == []
    assert all(target.startswith("#") for target in document.xpath("//@href"))


def test_ids_are_unique_and_whatever_points_at_one_finds_it(document):
    ids = document.xpath("//@id")
    assert len(ids) == len(set(ids))
    inside = re.findall(r"url\(#([^)]+)\)", html.tostring(document, encoding="unicode"))
    targets = [target[1:] for target in document.xpath("//@href")] + inside
    assert set(targets) | set(document.xpath("//@aria-labelledby")) <= set(ids)


def test_there_is_one_title_and_no_heading_skips_a_level(document):
    levels = [int(heading.tag[1]) for heading in document.xpath("//h1|//h2|//h3|//h4|//h5|//h6")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_landmarks_are_there_and_the_first_link_skips_to_the_report(document):
    for landmark in ("header", "nav", "main", "footer"):
        assert len(document.xpath(f"//{landmark}")) == 1
    first = document.xpath("//a")[0]
    assert first.get("href") == f"#{document.xpath('//main/@id')[0]}"


def test_every_picture_says_what_it_shows_and_stands_beside_its_numbers(document):
    for picture in document.xpath("//svg"):
        assert picture.get("role") == "img"
        assert len(picture.get("aria-label")) > 10
        section = picture.xpath("ancestor::section")[0]
        assert section.xpath(".//table")


def test_every_table_scrolls_in_its_own_box_that_a_keyboard_reaches(document):
    for table in document.xpath("//table"):
        box = table.getparent()
        assert (box.get("class"), box.get("tabindex"), box.get("role")) == ("scroll", "0", "region")
        assert box.get("aria-label")
        assert table.xpath(".//th[@scope='col']")


def test_no_colour_is_fixed_in_a_picture_and_its_text_is_text(document):
    for picture in document.xpath("//svg"):
        assert re.search(r"#[0-9a-f]{6}", html.tostring(picture, encoding="unicode")) is None
        assert picture.xpath(".//text")


@pytest.mark.parametrize("kind", FULL)
def test_every_part_has_its_section(kind):
    document = html.document_fromstring(rendered(kind))
    titles = [heading.text for heading in document.xpath("//h2")]
    wanted = ["Gates", "What ran", "Data", "Training", "Metrics", "Scores and decisions", "Slices"]
    assert titles[:7] == wanted
    assert {"What the model looks at", "Serving", "On the device", "Lineage"} <= set(titles)
    assert [link.text for link in document.xpath("//nav//a")] == titles


def test_what_was_refused_comes_first_and_what_passed_is_folded(binary):
    gates = binary.xpath("//section[@aria-labelledby='gates']")[0]
    shown = [heading.text for heading in gates.xpath(".//h3")]
    assert shown == ["Refused, and somebody answers for it (1)", "Warned (1)"]
    assert "let pass by Kim" in text(binary)
    folded = gates.xpath(".//details//th[@scope='row']")
    assert {cell.text for cell in folded} == {"rows in train", "against majority"}


def test_the_refused_class_label_is_shown_with_figure_and_bound():
    document = html.document_fromstring(rendered("several classes"))
    assert document.xpath("//section[@aria-labelledby='gates']//h3")[0].text == "Refused (1)"
    assert "at least 0.66" in text(document)
    assert "1,800" in text(document)


def test_text_from_the_data_cannot_become_markup():
    page = replace(pages.stopped_early(), pipeline="<script>alert(1)</script>")
    written = render(page)
    assert "<script" not in written
    assert "column &lt;age&gt; is missing" in written


def test_a_name_in_a_picture_cannot_become_markup_or_a_formula():
    page = pages.binary()
    assert page.model
    curves = (Curve("<b>$x^2$</b>", (0.0, 1.0), (0.0, 1.0)),)
    document = html.document_fromstring(render(replace(page, model=replace(page.model, roc=curves))))
    assert document.xpath("//svg//b") == []
    assert "<b>$x^2$</b>" in document.xpath("//svg[contains(@aria-label, 'ROC')]")[0].text_content()


def test_the_chosen_threshold_and_the_kept_epoch_are_marked(binary):
    chosen = [" ".join(row.text_content().split()) for row in binary.xpath("//tr[@class='chosen']")]
    assert any(row.startswith("0.3700 (chosen) 10,339") for row in chosen)
    assert any(row.startswith("5 (kept)") for row in chosen)


def test_slices_too_small_to_judge_are_marked(binary):
    rows = binary.xpath("//section[@aria-labelledby='slices']//tr[td]")
    marked = {row.xpath("th")[0].text for row in rows if "shown only" in row.text_content()}
    assert marked == {f"region = {number}" for number in range(4, 9)}


def test_a_changed_relationship_is_told_first_and_marked(binary):
    [section] = binary.xpath("//section[@aria-labelledby='residuals']")
    assert [heading.text for heading in section.xpath(".//h3")][:3] == [
        "All rows",
        "Changed relationships",
        "Farthest from zero",
    ]
    [told] = section.xpath("ul[2]/li")
    assert told.text.startswith(f"{pages.COLUMNS[0]} relates to kept otherwise in test than in validation")
    assert "where it is Town <1> (480 rows)" in told.text
    marked = [heading.text_content() for heading in section.xpath(".//h4") if heading.xpath("span")]
    assert marked == [f"{pages.COLUMNS[0]}: changed"]


def test_several_classes_each_have_their_residuals():
    document = html.document_fromstring(rendered("several classes"))
    titles = [h.text for h in document.xpath("//section[@aria-labelledby='residuals']//h3")]
    assert {"By column of card", "By column of later", "Over day of card"} <= set(titles)


def test_what_each_feature_adds_is_told_with_its_interval(binary):
    [section] = binary.xpath("//section[@aria-labelledby='ablation']")
    told = [" ".join(cell.text_content() for cell in row) for row in section.xpath(".//tbody/tr")]
    assert told[0].endswith("+0.0800 +0.0760 and +0.0840 +0.0790 to +0.0810 helps")
    assert [row.endswith("no difference seen") for row in told] == [False, True, True, False]
    assert told[3].endswith("does harm")
    assert "4 of 6 are finished" in text(section.getroottree().getroot())
    assert "the test split was not read" in section.text_content()


def test_rows_that_break_a_behavioural_test_are_shown(binary):
    assert "worse weather does not help: failed" in text(binary)
    assert "0.31 → 0.12" in text(binary)


def test_notes_of_what_could_not_be_read_are_in_the_header():
    written = render(
        replace(pages.stopped_early(), notes=("Could not read the figures of ModelGate: gone.",))
    )
    header = html.document_fromstring(written).xpath("//header")[0]
    assert "Could not read the figures of ModelGate" in header.text_content()


@pytest.mark.parametrize(
    "lacking",
    [
        {"gates": ()},
        {"data": None},
        {"rows": {}, "data": None},
        {"epochs": ()},
        {"slices": ()},
        {"model": None},
        {"serving": None},
        {"devices": None},
        {"residuals": None},
        {"ablation": None},
        {"facts": {}, "artifacts": ()},
        {"steps": ()},
    ],
    ids=lambda lacking: "+".join(lacking),
)
def test_any_part_may_be_missing(lacking):
    page = replace(pages.binary(), columns=(), **lacking)
    document = html.document_fromstring(render(page))
    assert document.xpath("//h2")
    assert set(document.xpath("//nav//@href")) == {f"#{name}" for name in document.xpath("//h2/@id")}


def test_device_models_come_by_size_with_the_one_to_ship_and_why_others_do_not(binary):
    (section,) = binary.xpath("//section[@aria-labelledby='devices']")
    answers, costs = section.xpath(".//table")

    def heads(table, row="tr"):
        return [head.text_content() for head in table.xpath(f".//tbody/{row}/th")]

    assert heads(costs) == ["1. pruned+int8", "2. int8", "3. float32"]
    assert heads(answers, "tr[@class='chosen']") == ["2. int8"]
    assert "Ship int8" in section.text_content()
    assert "not blessed: its auc is 0.0051 worse" in answers.text_content()
    assert "int16x8: GATHER cannot be had in 16 bits" in section.text_content()


def test_a_model_of_which_only_metrics_are_known_is_shown():
    page = pages.binary()
    assert page.model
    bare = replace(page, columns=(), model=ModelEvidence("binary", ("a", "b"), 10, page.model.estimates))
    assert "Metrics" in text(html.document_fromstring(render(bare)))
