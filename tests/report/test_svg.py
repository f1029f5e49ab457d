import re

import pytest
from lxml import html
from matplotlib.figure import Figure

from report.svg import INK, PAPER, SERIES, inline


def drawn(prefix: str = "p1", label: str = "a line that rises"):
    figure = Figure(figsize=(3, 2))
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.plot([1, 2], [1, 4], color=SERIES[0], marker="o", markerfacecolor=PAPER)
    axes.set_title("a < b & c", color=INK)
    return inline(figure, prefix, label)


@pytest.fixture(scope="module")
def picture():
    return html.fragment_fromstring(str(drawn()))


def test_it_is_an_image_with_a_label_that_keeps_its_shape_at_any_width(picture):
    assert (picture.tag, picture.get("role"), picture.get("aria-label")) == (
        "svg",
        "img",
        "a line that rises",
    )
    assert picture.get("viewbox") == "0 0 216 144"
    assert picture.get("width") is None


def test_drawn_colours_become_those_of_the_page():
    styles = " ".join(re.findall(r'style="([^"]*)"', str(drawn())))
    assert {"var(--c1)", "var(--ink)", "var(--paper)"} <= set(re.findall(r"var\(--\w+\)", styles))
    assert INK not in styles
    assert "font-family" not in styles


def test_nothing_of_the_writer_is_left(picture):
    text = str(drawn())
    for trace in ("http", "matplotlib", "metadata", "<?xml", "DOCTYPE", "rotate(-0"):
        assert trace not in text
    assert max(len(number) for number in re.findall(r"\d+\.(\d+)", " ".join(picture.xpath("//@d")))) == 1


def test_text_is_text_and_cannot_become_markup(picture):
    assert "a < b & c" in picture.text_content()


def test_ids_of_two_pictures_differ_and_lead_somewhere():
    one, two = (set(re.findall(r'id="([^"]+)"', str(drawn(prefix)))) for prefix in ("p1", "p2"))
    assert one
    assert not one & two
    assert set(re.findall(r"#(p1[\w-]*)", str(drawn("p1")))) == one


def test_a_label_with_quotes_stays_a_label():
    assert (
        html.fragment_fromstring(str(drawn(label='the "best" <one>'))).get("aria-label") == 'the "best" <one>'
    )
