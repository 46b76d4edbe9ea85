"""A matplotlib figure as SVG that lives inside a page: the page's colours, the page's font, no id twice."""

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours no plot would use, each standing for a CSS variable of the page.
INK, MUTED, GRID, ACCENT, BASE, CARD = "#010101", "#010102", "#010103", "#010104", "#010105", "#010106"
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", ACCENT: "accent", BASE: "base", CARD: "card"}

SMALL, LARGE = 340, 400
"""Widths of plots, in CSS pixels before the page scales them: three and two to a row."""

_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"


def blank(width: int = SMALL, height: int = 220) -> "tuple[Figure, Axes]":
    """A figure with empty axes: light horizontal lines, no frame, few ticks. Sizes in CSS pixels."""
    from matplotlib.figure import Figure  # half a second that only a report needs
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="y", color=GRID, lw=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=11, labelcolor=MUTED, pad=5)
    axes.xaxis.label.set(color=MUTED, size=11)
    axes.yaxis.label.set(color=MUTED, size=11)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    return figure, axes


def inline(figure: "Figure", name: str, label: str) -> str:
    """The figure as an SVG element.

    ``name`` is unique in the page and prefixes every id; ``label`` says to a screen reader what is to be seen. The
    same figure always gives the same text.
    """
    from matplotlib import rc_context

    written = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(written.getvalue())
    _strip(root)
    referenced = {ref for e in root.iter() for ref in _references(e)}
    for element in root.iter():
        _settle(element, name, referenced)
    root.attrib |= {"role": "img", "aria-label": label, "class": "plot"}
    for size in ("width", "height"):
        root.attrib.pop(size)
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _strip(root: ElementTree.Element) -> None:
    """Remove metadata, and styles that would reach beyond this element."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)


def _references(element: ElementTree.Element) -> list[str]:
    urls = [m for value in element.attrib.values() for m in re.findall(r"url\(#([^)]+)\)", value)]
    return [*urls, *([element.attrib[_HREF][1:]] if _HREF in element.attrib else [])]


def _settle(element: ElementTree.Element, name: str, referenced: set[str]) -> None:
    """Give an element the page's colours and font, and an id only if something refers to it."""
    known = element.attrib.pop("id", None)
    if known in referenced:
        element.set("id", f"{name}-{known}")
    if href := element.attrib.pop(_HREF, None):
        element.set("href", f"#{name}-{href[1:]}")
    for key, value in element.attrib.items():
        value = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", value)
        value = re.sub(r"font: (?:\w+ )*([\d.]+px) [^;]+", r"font-size: \1", value)
        value = re.sub(r"font-family: [^;]+;? ?", "", value)
        for colour, variable in VARIABLES.items():
            value = value.replace(colour, f"var(--{variable})")
        element.set(key, value)
