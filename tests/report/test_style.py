"""Contrast of the page's colours, as WCAG 2.2 computes it, in both schemes."""

import re
from pathlib import Path

import pytest

STYLE = (Path(__file__).resolve().parents[2] / "report" / "templates" / "style.css").read_text()
READ = ("ink", "soft", "good", "bad", "care", "link", "c1", "c2", "c3", "c4", "c5", "c6")
LEAST = 4.5


def schemes() -> dict[str, dict[str, str]]:
    light, dark = (
        dict(re.findall(r"--([\w]+): (#[0-9a-f]{6})", block)) for block in STYLE.split("@media", 2)[:2]
    )
    return {"light": light, "dark": {**light, **dark}}


def luminance(colour: str) -> float:
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_formula_knows_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_whatever_is_read_stands_out_from_paper_and_panel(scheme):
    colours = schemes()[scheme]
    too_faint = {
        f"{name} on {ground}": round(contrast(colours[name], colours[ground]), 2)
        for name in READ
        for ground in ("paper", "panel")
        if contrast(colours[name], colours[ground]) < LEAST
    }
    assert too_faint == {}


def test_the_two_schemes_differ():
    found = schemes()
    assert all(found["light"][name] != found["dark"][name] for name in (*READ, "paper"))
