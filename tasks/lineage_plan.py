"""Where everything in the picture of a lineage lies.

Columns that do not fit beside each other go on in the next band, as text goes on in the next line. A wire that goes on
there turns outside of the columns, on a track of its own.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

from infra.lineage import Lineage, Node
from tasks.layers import Item, Link, heights, layered
from tasks.numbers import number

COLUMNS, NODE, BETWEEN = 5, 180, 42
"""In a band; pixels of a node's width, and between columns. With the widest margins that makes 1,200."""
LINE, PADDING, WIRE, GAP = 16, 9, 13, 18
"""Heights: a line of text, above and below the text, what a wire takes up in a column, between nodes."""
TOP, TRACK, AWAY, MARGIN = 88, 6, 12, 66
LETTERS = int((NODE - 2 * PADDING) / 6.65)
"""Characters of 11 px that fit into a node, in the widest of the usual fonts of one width."""
NAMES = 3
"""Of those that point to a node, as many are written in it."""


class Box(NamedTuple):
    """Where an item is drawn, in pixels."""

    left: float
    middle: float
    height: float

    @property
    def right(self) -> float:
        return self.left + NODE

    @property
    def top(self) -> float:
        return self.middle - self.height / 2


class Turn(NamedTuple):
    """How a wire goes on in the next band: from the right of its item around to the left of others."""

    source: Item
    to: tuple[Item, ...]
    right: float
    below: float
    left: float


class Plan(NamedTuple):
    boxes: Mapping[Item, Box]
    links: Sequence[Link]
    """Those within a band."""
    turns: Sequence[Turn]
    labels: Mapping[str, Sequence[str]]
    """Lines of a node below its kind: recipe, then names."""
    width: float
    height: float


def planned(lineage: Lineage) -> Plan:
    """Everything in its place. The same lineage gives the same plan."""
    layers = layered({node.key: node.parents for node in lineage.nodes})
    run = one_run(lineage)
    labels = {node.key: _label(node, run) for node in lineage.nodes}
    bands = _bands(len(layers.columns))
    within, crossing = _by_band(layers.links, bands)
    wires = [len({link.source for link in links}) for links in crossing]
    margin = min(MARGIN, 2 * AWAY + max(wires) * TRACK)
    boxes: dict[Item, Box] = {}
    turns: list[Turn] = []
    bottom = float(TOP)
    for place, band in enumerate(bands):
        turns += _turns(crossing[place], boxes, bottom, margin)
        bottom += wires[place] * TRACK + (3 * AWAY if wires[place] else 0)
        fresh = _band([layers.columns[number] for number in band], within[place], labels, margin, bottom)
        bottom = max(box.middle + box.height / 2 for box in fresh.values())
        boxes |= fresh
    return Plan(
        boxes=boxes,
        links=[link for links in within for link in links],
        turns=turns,
        labels=labels,
        width=max(640, 2 * margin + max(map(len, bands)) * (NODE + BETWEEN) - BETWEEN),
        height=bottom + 24,
    )


def _by_band(links: Sequence[Link], bands: Sequence[range]) -> tuple[list[list[Link]], list[list[Link]]]:
    """The links within each band, and those that come into it from the one before."""
    band_of = {column: place for place, band in enumerate(bands) for column in band}
    within: list[list[Link]] = [[] for _ in bands]
    crossing: list[list[Link]] = [[] for _ in bands]
    for link in links:
        inside = band_of[link.source.column] == band_of[link.to.column]
        (within if inside else crossing)[band_of[link.to.column]].append(link)
    return within, crossing


def one_run(lineage: Lineage) -> str | None:
    """The run that all names in a lineage are of; None where there are several, or none."""
    runs = {name.split("/")[0] for node in lineage.nodes for name in node.names}
    return runs.pop() if len(runs) == 1 else None


def cut(text: str, letters: int) -> str:
    """The end of a text that is too long: of a name it tells more than the beginning."""
    return text if len(text) <= letters else f"…{text[len(text) - letters + 1 :]}"


def _label(node: Node, run: str | None) -> list[str]:
    names = [name.removeprefix(f"{run}/") for name in node.names]
    shown = names if len(names) <= NAMES else names[: NAMES - 1]
    more = [f"and {len(names) - len(shown)} more"] if len(names) > len(shown) else []
    recipe = node.short if node.state == "there" else f"{node.short} {node.state}"
    return [cut(line, LETTERS) for line in (recipe, *shown, *more)]


def rows_of(node: Node) -> str:
    return "" if node.rows is None else f"{number(node.rows, 0, 'count')} rows"


def _bands(columns: int) -> list[range]:
    """As even as they can be."""
    each = ceil(columns / ceil(columns / COLUMNS))
    return [range(start, min(start + each, columns)) for start in range(0, columns, each)]


def _band(
    columns: Sequence[Sequence[Item]],
    links: Sequence[Link],
    labels: Mapping[str, Sequence[str]],
    margin: float,
    top: float,
) -> dict[Item, Box]:
    tall = {
        item: 2 * PADDING + LINE * (1 + len(labels[item.key])) if item.is_node else WIRE
        for column in columns
        for item in column
    }
    middle = heights(columns, links, {i: t + (GAP if i.is_node else 0) for i, t in tall.items()})
    return {
        item: Box(margin + place * (NODE + BETWEEN), top + middle[item], tall[item])
        for place, column in enumerate(columns)
        for item in column
    }


def _turns(links: Sequence[Link], boxes: Mapping[Item, Box], bottom: float, margin: float) -> list[Turn]:
    """The upper a wire comes, the further out it turns, and so no two of them cross on the way."""
    sources = sorted({link.source for link in links}, key=lambda item: boxes[item].middle)
    apart = min(TRACK, (margin - 2 * AWAY) / len(sources)) if sources else 0
    turns: list[Turn] = []
    for place, source in enumerate(sources):
        out = AWAY + (len(sources) - place) * apart
        to = tuple(link.to for link in links if link.source == source)
        turns.append(Turn(source, to, boxes[source].right + out, bottom + out, margin - AWAY - place * apart))
    return turns
