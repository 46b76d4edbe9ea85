"""The report's plots. Grey is the initial policy, the accent what was promoted, hollow what was rejected."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from alignment.report import RewardSpread
from alignment.summary import Interval
from tasks.numbers import Style, number, round_name
from tasks.svg import ACCENT, BASE, CARD, GRID, INK, LARGE, MUTED, blank, inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = (0, (2, 2.5))


class Point(NamedTuple):
    """One policy in a plot."""

    round: int | None
    """None is the initial policy."""
    promoted: bool
    y: Interval
    x: Interval | None = None

    @property
    def colour(self) -> str:
        return BASE if self.round is None else ACCENT


class Segment(NamedTuple):
    """One training in a plot: a value per optimiser step."""

    round: int
    promoted: bool
    values: tuple[float, ...]


def rounds_plot(
    name: str,
    label: str,
    points: Sequence[Point],
    *,
    digits: int = 2,
    style: Style = "plain",
    even: float | None = None,
) -> str:
    """A metric over the rounds: the path of promoted policies, whiskers for 95% intervals, rejected rounds hollow.

    The initial policy's interval is a band across the plot: one sees whether a later one clears it. ``even`` draws a
    line of reference instead of the path: such values compare with their own opponent, not with each other.
    """
    figure, axes = blank()
    first = points[0]
    if first.round is None and first.y.low is not None and first.y.high is not None:
        axes.axhspan(first.y.low, first.y.high, color=BASE, alpha=0.16, lw=0)
    if even is not None:
        axes.axhline(even, color=MUTED, lw=1, ls=DASHES)
    else:
        _path(axes, [float(i) for i in range(len(points))], points)
    for i, point in enumerate(points):
        _dot(axes, i, point, 8 if len(points) <= 12 else 5)
        if len(points) <= 5 or i in (0, len(points) - 1):
            _value(axes, i, point, number(point.y.mean, digits, style))
    step = math.ceil(len(points) / 10)
    axes.set_xticks(range(0, len(points), step), [_tick(p) for p in points[::step]])
    aside = max(0.5, 0.06 * len(points))
    axes.set_xlim(-aside, len(points) - 1 + aside)
    axes.set_xlabel("round")
    axes.margins(y=0.2)
    _format(axes.yaxis, style)
    return inline(figure, name, label)


def plane_plot(name: str, label: str, points: Sequence[Point], *, xlabel: str, ylabel: str) -> str:
    """Policies in a plane, joined in the order they were promoted: a path that turns down is over-optimisation."""
    figure, axes = blank(LARGE, 260)
    _path(axes, [p.x.mean if p.x else math.nan for p in points], points)
    for point in points:
        if point.x is None:
            continue
        _whisker(axes, (point.x.low, point.x.high), (point.y.mean, point.y.mean), point)
        _dot(axes, point.x.mean, point)
        at = (point.x.mean, point.y.mean)
        aside, anchor = (-8, "right") if point.promoted else (8, "left")
        axes.annotate(
            round_name(point.round), at, (aside, 7), textcoords="offset points", size=11, color=_ink(point), ha=anchor
        )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.margins(x=0.22, y=0.18)
    _format(axes.xaxis, "plain")
    _format(axes.yaxis, "plain")
    return inline(figure, name, label)


def spread_plot(name: str, label: str, spread: RewardSpread) -> str:
    """How rewards of single completions are spread: the initial policy filled in grey, the later one in outline.

    Shares, so that unequal numbers of completions compare; the short marks at the foot are the means.
    """
    import numpy as np

    figure, axes = blank(LARGE, 220)
    before, after = np.asarray(spread.before), np.asarray(spread.after)
    both = np.concatenate([before, after])
    bins = np.histogram_bin_edges(both, bins=max(8, min(28, round(2 * len(both) ** (1 / 3)))))
    shares = [np.histogram(values, bins=bins)[0] / len(values) for values in (before, after)]
    axes.stairs(shares[0], bins, fill=True, color=BASE, alpha=0.45, lw=0)
    axes.stairs(shares[1], bins, color=ACCENT, lw=2)
    foot = {"transform": axes.get_xaxis_transform(), "clip_on": False, "lw": 3}
    axes.plot([before.mean()] * 2, [0, 0.06], color=BASE, **foot)
    axes.plot([after.mean()] * 2, [0, 0.06], color=ACCENT, **foot)
    sides = ("right", "left") if before.mean() <= after.mean() else ("left", "right")
    for share, text, ink, side in zip(shares, ("base", round_name(spread.round)), (MUTED, ACCENT), sides, strict=True):
        peak = int(share.argmax())
        at = ((bins[peak] + bins[peak + 1]) / 2, float(share[peak]))
        axes.annotate(text, at, (0, 5), textcoords="offset points", size=11, color=ink, ha=side)
    axes.set_xlabel("reward" if spread.measure == "reward" else "gold reward")
    axes.set_ylim(0, None)
    axes.margins(y=0.2)
    _format(axes.yaxis, "share")
    _format(axes.xaxis, "plain")
    return inline(figure, name, label)


def training_plot(name: str, label: str, segments: Sequence[Segment], *, style: Style = "plain") -> str:
    """A training metric, the rounds laid end to end; rejected rounds are dotted."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = blank(height=190)
    start, every = 0, math.ceil(len(segments) / 8)
    for place, segment in enumerate(segments):
        steps = [start + i for i in range(len(segment.values))]
        ls = "-" if segment.promoted else (0, (1, 1.1))
        marker = "o" if len(steps) == 1 else None
        axes.plot(steps, segment.values, color=ACCENT, lw=1.6, ls=ls, marker=marker, ms=4, solid_joinstyle="round")
        if start:
            axes.axvline(start - 0.5, color=GRID, lw=1)
        middle = start + (len(steps) - 1) / 2
        if place % every == 0:
            _overhead(axes, middle, round_name(segment.round) if place == 0 else str(segment.round))
        start += len(steps)
    axes.set_xlabel("optimiser step, round by round")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(y=0.12)
    _format(axes.yaxis, style)
    return inline(figure, name, label)


def _path(axes: "Axes", xs: Sequence[float], points: Sequence[Point]) -> None:
    """Join promoted policies; a rejected one hangs by a dotted line from the policy it did not beat."""
    last: tuple[float, float] | None = None
    for x, point in zip(xs, points, strict=True):
        here = (x, point.y.mean)
        if last is not None:
            ls, colour = ("-", ACCENT) if point.promoted else (DASHES, MUTED)
            axes.plot([last[0], here[0]], [last[1], here[1]], color=colour, lw=1.6, ls=ls, zorder=2)
        if point.promoted:
            last = here


def _dot(axes: "Axes", x: float, point: Point, size: float = 8) -> None:
    """The estimate with its vertical whisker."""
    _whisker(axes, (x, x), (point.y.low, point.y.high), point)
    fill = point.colour if point.promoted else CARD
    axes.plot([x], [point.y.mean], "o", ms=size, mfc=fill, mec=point.colour, mew=size / 4.5, zorder=4)


def _whisker(axes: "Axes", xs: tuple[float | None, ...], ys: tuple[float | None, ...], point: Point) -> None:
    if None not in (*xs, *ys):
        axes.plot(xs, ys, color=point.colour, lw=1.8, solid_capstyle="round", zorder=3)  # type: ignore[arg-type]


def _overhead(axes: "Axes", x: float, text: str) -> None:
    at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(text, (x, 1), (0, 4), size=11, color=MUTED, ha="center", **at)


def _value(axes: "Axes", x: float, point: Point, text: str) -> None:
    top = point.y.mean if point.y.high is None else point.y.high
    weight = "bold" if point.promoted and point.round is not None else "normal"
    axes.annotate(
        text, (x, top), (0, 8), textcoords="offset points", size=11, color=_ink(point), ha="center", weight=weight
    )


def _ink(point: Point) -> str:
    return INK if point.promoted and point.round is not None else MUTED


def _tick(point: Point) -> str:
    return "base" if point.round is None else str(point.round)


def _format(axis: object, style: Style) -> None:
    """Ticks written as all other numbers are, with no more digits than tell them apart."""
    from matplotlib.axis import Axis
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    assert isinstance(axis, Axis)
    axis.set_major_locator(MaxNLocator(4))
    scale = 100 if style == "share" else 1

    def written(value: float, _: int | None) -> str:
        ticks = [t * scale for t in axis.get_majorticklocs()]
        gap = min((b - a for a, b in itertools.pairwise(ticks)), default=1.0)
        digits = next((d for d in range(6) if abs(round(gap, d) - gap) < 1e-9 * max(1, abs(gap))), 6)
        return number(value, digits, style)

    axis.set_major_formatter(FuncFormatter(written))
