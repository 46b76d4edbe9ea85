"""A graph of what was made from what, laid out from left to right: every node to the right of all that it was made
from.

A node that is used beyond the next column sends one wire there, which has a place of its own in every column it goes
through. So lines run straight through columns, turn only between them, and cross no node.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from statistics import fmean
from typing import NamedTuple

SWEEPS = 12
"""Passes over the columns; what more of them would gain is not seen."""
STRAIGHT = 4
"""Times that a wire pulls on its own next station, where another node pulls once: bends belong at its ends."""


class Item(NamedTuple):
    """A node, or its wire on the way through a later column."""

    key: str
    column: int
    is_node: bool


class Link(NamedTuple):
    """From one column to the next."""

    source: Item
    to: Item


class Layers(NamedTuple):
    columns: tuple[tuple[Item, ...], ...]
    """From left to right, each from top to bottom."""
    links: tuple[Link, ...]


def layered(parents: Mapping[str, Sequence[str]]) -> Layers:
    """Columns in an order that has few crossings. ``parents`` names each node before those it was made from."""
    children: dict[str, list[str]] = {key: [] for key in parents}
    for key, of in parents.items():
        for parent in of:
            children[parent].append(key)
    column = _columns(parents, children)
    columns: list[list[Item]] = [[] for _ in range(max(column.values()) + 1)]
    links: list[Link] = []
    for key in reversed(list(parents)):
        stations, out = _wire(key, column, children[key])
        links += out
        for item in stations:
            columns[item.column].append(item)
    return Layers(_ordered(columns, links), tuple(links))


def _columns(parents: Mapping[str, Sequence[str]], children: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """One to the right of the rightmost parent; what has none stands right before its first use."""
    column: dict[str, int] = {}
    for key in reversed(list(parents)):
        column[key] = 1 + max((column[parent] for parent in parents[key]), default=-1)
    for key in parents:
        if not parents[key] and children[key]:
            column[key] = min(column[child] for child in children[key]) - 1
    return column


def _wire(key: str, column: Mapping[str, int], children: Sequence[str]) -> tuple[list[Item], list[Link]]:
    """The node and the stations of its wire up to its last use, and their links."""
    first = column[key]
    last = max((column[child] for child in children), default=first + 1)
    stations = [Item(key, number, number == first) for number in range(first, last)]
    links = [Link(here, there) for here, there in pairwise(stations)]
    links += [Link(stations[column[child] - 1 - first], Item(child, column[child], True)) for child in children]
    return stations, links


def _ordered(columns: Sequence[list[Item]], links: Sequence[Link]) -> tuple[tuple[Item, ...], ...]:
    """Each item at the mean height of what it is linked to, on the one side and on the other in turn."""
    before, after = _neighbours(links)
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        linked = before if forwards else after
        height = {item: place / len(column) for column in columns for place, item in enumerate(column)}
        for column in columns if forwards else reversed(columns):
            wanted = {item: fmean([height[o] for o in linked.get(item, [item])]) for item in column}
            column.sort(key=lambda item: wanted[item])
            height |= {item: place / len(column) for place, item in enumerate(column)}
    return tuple(tuple(column) for column in columns)


def _neighbours(links: Iterable[Link]) -> tuple[dict[Item, list[Item]], dict[Item, list[Item]]]:
    before: dict[Item, list[Item]] = {}
    after: dict[Item, list[Item]] = {}
    for source, to in links:
        before.setdefault(to, []).append(source)
        after.setdefault(source, []).append(to)
    return before, after


def heights(columns: Sequence[Sequence[Item]], links: Sequence[Link], room: Mapping[Item, float]) -> dict[Item, float]:
    """The middle of each item from the top, so that lines are as straight as ``room``, what each takes up, allows."""
    before, after = _neighbours(links)
    middle = {item: y for column in columns for item, y in zip(column, _stacked(column, room), strict=True)}
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            linked = {item: before.get(item, []) + after.get(item, []) for item in column}
            wanted = [_pulled(item, linked[item] or [item], middle) for item in column]
            middle |= zip(column, _settled(wanted, column, room), strict=True)
    top = min(middle[item] - room[item] / 2 for column in columns for item in column)
    return {item: y - top for item, y in middle.items()}


def _pulled(item: Item, by: Sequence[Item], middle: Mapping[Item, float]) -> float:
    return fmean([middle[other] for other in by], [STRAIGHT if other.key == item.key else 1 for other in by])


def _stacked(column: Sequence[Item], room: Mapping[Item, float]) -> list[float]:
    """Middles, one below the other."""
    gaps = [(room[a] + room[b]) / 2 for a, b in pairwise(column)]
    return list(accumulate(gaps, initial=room[column[0]] / 2)) if column else []


def _settled(wanted: Sequence[float], column: Sequence[Item], room: Mapping[Item, float]) -> list[float]:
    """The heights nearest to those wanted, in least squares, that keep order and room (pool adjacent violators)."""
    offsets = _stacked(column, room)
    blocks: list[tuple[float, int]] = []
    for place, offset in zip(wanted, offsets, strict=True):
        mean, count = place - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, of = blocks.pop()
            mean, count = (mean * count + before * of) / (count + of), count + of
        blocks.append((mean, count))
    shifts = [mean for mean, count in blocks for _ in range(count)]
    return [offset + shift for offset, shift in zip(offsets, shifts, strict=True)]
