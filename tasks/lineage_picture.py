"""A lineage as a picture: one SVG document that needs nothing else, older to newer from left to right."""

from collections.abc import Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement, tostring

from infra.lineage import Lineage, Node
from tasks.lineage_plan import LINE, NODE, PADDING, TOP, Box, Plan, Turn, cut, one_run, planned, rows_of

CORNER, ARROW = 5, 7
MODELS = ("policy", "reward_model")
STYLE = """
svg { --bg: #faf9f6; --card: #ffffff; --ink: #1d1c1a; --muted: #66625a; --line: #b3ada1; --accent: #0b6b5d;
  --trail: #6ba59b; --warn: #a63d12;
  font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
@media (prefers-color-scheme: dark) { svg { --bg: #131517; --card: #1a1d20; --ink: #ebe8e1; --muted: #a6a299;
  --line: #5b6066; --accent: #62cbb5; --trail: #3d7f73; --warn: #ff9d75; } }
.page { fill: var(--bg); }
text { fill: var(--ink); }
.title { font-size: 20px; font-weight: 600; }
.kind { font-weight: 600; }
.small { font: 11px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace; }
.muted { fill: var(--muted); }
.node rect { fill: var(--card); stroke: var(--line); }
.model rect { stroke: var(--accent); }
.model .kind { fill: var(--accent); }
.asked rect { stroke-width: 3; }
.broken rect { stroke: var(--warn); stroke-dasharray: 5 4; }
.broken text { fill: var(--warn); }
.wire { fill: none; stroke: var(--line); stroke-width: 1.4; }
.wire.from-model { stroke: var(--trail); }
.tip { fill: var(--muted); }
"""


def lineage_svg(lineage: Lineage) -> str:
    """The picture, as an SVG document. The same lineage gives the same text."""
    plan, nodes = planned(lineage), {node.key: node for node in lineage.nodes}
    svg = _page(lineage, plan)
    for link in plan.links:
        _wire(svg, nodes[link.source.key], _curve(plan.boxes[link.source], plan.boxes[link.to]))
    for turn in plan.turns:
        for path in _around(turn, plan):
            _wire(svg, nodes[turn.source.key], path)
    for item, box in plan.boxes.items():
        if not item.is_node:
            _wire(svg, nodes[item.key], f"M{box.left:g} {box.middle:g}H{box.right:g}")
    for item in dict.fromkeys([*(k.to for k in plan.links), *(to for turn in plan.turns for to in turn.to)]):
        if item.is_node:
            _tip(svg, plan.boxes[item])
    for item, box in plan.boxes.items():
        if item.is_node:
            _node(svg, nodes[item.key], plan.labels[item.key], box, asked=item.key == lineage.artifact)
    return tostring(svg, encoding="unicode")


def _page(lineage: Lineage, plan: Plan) -> Element:
    root, run = lineage.nodes[0], one_run(lineage)
    title = f"Lineage of {root.kind} {root.short}"
    size = {"width": f"{plan.width:g}", "height": f"{plan.height:g}", "viewBox": f"0 0 {plan.width:g} {plan.height:g}"}
    svg = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, "role": "img"})
    SubElement(svg, "title").text = title
    SubElement(svg, "style").text = STYLE
    SubElement(svg, "rect", {"class": "page", "width": "100%", "height": "100%"})
    left = min(box.left for box in plan.boxes.values())
    _text(svg, left, TOP - 46, title, "title")
    of = f" of run {run}" if run else ""
    count = len(lineage.nodes)
    said = (
        f"{count} object{'s' if count > 1 else ''}{of}, each made from those whose lines lead to it. In {lineage.store}"
    )
    _text(svg, left, TOP - 24, cut(said, int((plan.width - 2 * left) / 6.7)), "muted")
    return svg


def _node(svg: Element, node: Node, label: Sequence[str], box: Box, *, asked: bool) -> None:
    classes = ["node", *(["model"] if node.kind in MODELS else []), *(["asked"] if asked else [])]
    group = SubElement(svg, "g", {"class": " ".join(classes + (["broken"] if node.state != "there" else []))})
    told = (node.key, f"digest {node.digest}" if node.digest else node.state, f"created {node.created}", *node.names)
    SubElement(group, "title").text = _clean("\n".join(told))
    SubElement(group, "rect", _at(box) | {"rx": "6"})
    y = box.top + PADDING + LINE - 4
    _text(group, box.left + PADDING, y, node.kind, "kind")
    if rows := rows_of(node):
        _text(group, box.right - PADDING, y, rows, "small muted", anchor="end")
    for number, line in enumerate(label, start=1):
        _text(group, box.left + PADDING, y + number * LINE, line, "small muted" if number == 1 else "small")


def _at(box: Box) -> dict[str, str]:
    return {"x": f"{box.left:g}", "y": f"{box.top:g}", "width": f"{NODE}", "height": f"{box.height:g}"}


def _text(parent: Element, x: float, y: float, text: str, classes: str, *, anchor: str = "start") -> None:
    said = SubElement(parent, "text", {"x": f"{x:g}", "y": f"{y:g}", "class": classes, "text-anchor": anchor})
    said.text = _clean(text)


def _clean(text: str) -> str:
    """XML has no place for control characters, not even escaped."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def _wire(svg: Element, source: Node, path: str) -> None:
    classes = "wire from-model" if source.kind in MODELS else "wire"
    SubElement(SubElement(svg, "path", {"class": classes, "d": path}), "title").text = source.key


def _curve(source: Box, to: Box) -> str:
    """Level at both ends, so that it turns only between the columns."""
    middle = (source.right + to.left) / 2
    ends = f"{middle:g} {source.middle:g} {middle:g} {to.middle:g} {to.left:g} {to.middle:g}"
    return f"M{source.right:g} {source.middle:g}C{ends}"


def _around(turn: Turn, plan: Plan) -> list[str]:
    begin = plan.boxes[turn.source]
    paths: list[str] = []
    for item in turn.to:
        end = plan.boxes[item]
        corners = [
            (turn.right, begin.middle),
            (turn.right, turn.below),
            (turn.left, turn.below),
            (turn.left, end.middle),
        ]
        paths.append(_rounded([(begin.right, begin.middle), *corners, (end.left, end.middle)]))
    return paths


def _rounded(points: Sequence[tuple[float, float]]) -> str:
    """Level and upright lines through the points, with round corners."""
    path = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for (before, here), (_, after) in pairwise(pairwise(points)):
        begin, end = _towards(here, before), _towards(here, after)
        path.append(f"L{begin[0]:g} {begin[1]:g}Q{here[0]:g} {here[1]:g} {end[0]:g} {end[1]:g}")
    return "".join([*path, f"L{points[-1][0]:g} {points[-1][1]:g}"])


def _towards(here: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """A corner's radius from one point to another, or half the way."""
    length = abs(other[0] - here[0]) + abs(other[1] - here[1])
    part = min(CORNER, length / 2) / length if length else 0.0
    return here[0] + (other[0] - here[0]) * part, here[1] + (other[1] - here[1]) * part


def _tip(svg: Element, box: Box) -> None:
    x, y = box.left, box.middle
    SubElement(svg, "path", {"class": "tip", "d": f"M{x:g} {y:g}l{-ARROW} {-ARROW / 2:g}v{ARROW}z"})
