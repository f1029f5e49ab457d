"""A matplotlib figure as SVG inside HTML: text stays text, colours are the page's own, ids do not collide."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#000001"
LINE = "#000002"
PAPER = "#000003"
SERIES = ("#000011", "#000012", "#000013", "#000014", "#000015", "#000016")

_VARIABLES: Mapping[str, str] = {
    INK: "var(--ink)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(SERIES, 1)},
}
"""Colours to draw with, and the CSS variable that each becomes, so that a figure follows light and dark."""

_HREF = "{http://www.w3.org/1999/xlink}href"
_GEOMETRY = ("d", "x", "y", "width", "height", "transform", "viewBox")
_NUMBER = re.compile(r"-?\d*\.\d+")
_REFERENCE = re.compile(r"#([\w.-]+)")
_DROPPED = ("metadata", "style")
_NO_TURN = re.compile(r"\s*rotate\(-?0 [^)]*\)")


def inline(figure: Figure, prefix: str, label: str) -> Markup:
    """The figure as an `svg` element.

    Args:
      figure: drawn with the colours above only.
      prefix: of every id in it; unique in the page.
      label: what it shows, for whoever cannot see it.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    written = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "headworks"}):
        FigureCanvasSVG(figure).print_svg(written)
    root = ElementTree.fromstring(written.getvalue())
    _strip(root)
    names = {name: f"{prefix}-{number}" for number, name in enumerate(dict.fromkeys(_references(root)))}
    for element in root.iter():
        _mend(element, names)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib.update({"role": "img", "aria-label": label})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _strip(element: ElementTree.Element) -> None:
    """Removes what a browser does not need: namespaces, remarks, layers that only group."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    if element.text is not None and element.tag != "text":
        element.text = None
    kept: list[ElementTree.Element] = []
    for child in element:
        _strip(child)
        if child.tag in _DROPPED or (child.tag in ("defs", "g") and not len(child)):
            continue
        if child.tag == "g" and not child.attrib.keys() - {"id"}:
            kept.extend(child)
        else:
            kept.append(child)
    element[:] = kept


def _references(root: ElementTree.Element) -> Iterator[str]:
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == _HREF or "url(" in value:
                yield from _REFERENCE.findall(value)


def _mend(element: ElementTree.Element, names: Mapping[str, str]) -> None:
    attributes = dict(element.attrib)
    element.attrib.clear()
    for name, value in attributes.items():
        if name == "id":
            if value in names:
                element.set("id", names[value])
        elif name == _HREF:
            element.set("href", f"#{names[value[1:]]}")
        elif "url(" in value:
            element.set(name, _REFERENCE.sub(lambda found: f"#{names[found[1]]}", value))
        elif name == "style":
            element.set("style", _page_style(value))
        elif name in _GEOMETRY:
            if short := _NO_TURN.sub("", " ".join(_NUMBER.sub(_rounded, value).split())):
                element.set(name, short)
        else:
            element.set(name, value)


def _page_style(style: str) -> str:
    """The declarations in the page's colours and font."""
    kept = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name and name != "font-family":
            kept.append(f"{name}:{_VARIABLES.get(value, value)}")
    return ";".join(kept)


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}".removesuffix(".0")
