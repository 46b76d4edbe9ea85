"""One claim as a line: where it would hold, what was measured, and what was measured before."""

import math
from typing import TYPE_CHECKING

from tasks.claims import Finding
from tasks.numbers import number
from tasks.svg import ACCENT, BASE, MUTED, blank, inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 250, 52


def claim_plot(name: str, label: str, finding: Finding) -> str:
    """The range in which the claim holds as a band with its ends marked, our interval in the accent above, the earlier
    one in grey below. Every claim has a scale of its own."""
    claim, result = finding
    figure, axes = blank(WIDTH, HEIGHT)
    axes.set_yticks([])
    axes.set_ylim(-1, 1)
    ends = [end for end in (claim.above, claim.below) if math.isfinite(end)]
    measured = [end for end in (result.low, result.high) if end is not None]
    low, high = _frame([*ends, *measured, *(claim.testbed or ())])
    axes.set_xlim(low, high)
    axes.axvspan(max(claim.above, low), min(claim.below, high), color=ACCENT, alpha=0.13, lw=0)
    for end in ends:
        axes.axvline(end, color=MUTED, lw=1)
    axes.set_xticks(ends, [number(end, 2).rstrip("0").rstrip(".") for end in ends])
    if claim.testbed:
        _whisker(axes, claim.testbed, -0.45, BASE)
    if result.low is not None and result.high is not None:
        _whisker(axes, (result.low, result.high), 0.35, ACCENT)
    return inline(figure, name, label)


def _frame(values: list[float]) -> tuple[float, float]:
    aside = 0.12 * (max(values) - min(values)) or 1.0
    return min(values) - aside, max(values) + aside


def _whisker(axes: "Axes", ends: tuple[float, float], y: float, colour: str) -> None:
    axes.plot(ends, (y, y), color=colour, lw=2, solid_capstyle="round", zorder=3)
    axes.plot([sum(ends) / 2], [y], "o", ms=6, color=colour, zorder=4)
