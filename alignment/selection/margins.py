"""Pairs ranked by a margin over the whole round: which share of them is kept."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from alignment.selection.couples import drop, pairable
from alignment.selection.evidence import Floats, lengths_of
from alignment.types import Dropped, Group, PreferencePair, seed_of

Band = Literal["top", "mid", "low", "random"]
"""Which part of the ranking is kept. Which is best is disputed (top: arXiv:2410.09362, 2502.14560; middle: 2510.13212;
low: 2508.04149), so it is to be measured; ``random`` is the control."""


Mask = NDArray[np.bool_]


class Reviewed(NamedTuple):
    """Labelled pairs of a round with their margins."""

    pairs: list[PreferencePair]
    margins_B: Floats
    """Chosen minus rejected."""
    length_gaps_B: Floats
    """Tokens of chosen minus tokens of rejected."""
    lost: dict[str, list[Dropped]]
    """By prompt: pairs of completions that were cut or are empty, and those without a finite margin."""


def review(groups: Sequence[Group], pairs: Sequence[PreferencePair], values_of: Callable[[Group], Floats]) -> Reviewed:
    """The margin of every pair under ``values_of``, which gives one number for each candidate of a group."""
    by_prompt: dict[str, list[PreferencePair]] = defaultdict(list)
    for pair in pairs:
        by_prompt[pair.prompt_id].append(pair)
    kept: list[PreferencePair] = []
    margins: list[float] = []
    gaps: list[float] = []
    lost: dict[str, list[Dropped]] = defaultdict(list)
    for group in groups:
        if not (of_prompt := by_prompt.pop(group.prompt.id, [])):
            continue
        values_G, lengths_G, pairable_G = values_of(group), lengths_of(group), pairable(group)
        for pair in of_prompt:
            margin = float(values_G[pair.chosen] - values_G[pair.rejected])
            if not (pairable_G[pair.chosen] and pairable_G[pair.rejected]):
                lost[pair.prompt_id].append(drop(item_of(pair), "a completion was cut at the token limit or is empty"))
            elif not np.isfinite(margin):
                lost[pair.prompt_id].append(drop(item_of(pair), f"the margin is {margin}"))
            else:
                kept.append(pair)
                margins.append(margin)
                gaps.append(float(lengths_G[pair.chosen] - lengths_G[pair.rejected]))
    if by_prompt:
        raise ValueError(f"prompt {next(iter(by_prompt))} has pairs and no group")
    return Reviewed(kept, np.array(margins), np.array(gaps), dict(lost))


def where(reviewed: Reviewed, mask_B: Mask) -> list[PreferencePair]:
    return [pair for pair, stays in zip(reviewed.pairs, mask_B, strict=True) if stays]


def lost_outside(reviewed: Reviewed, kept_B: Mask, reason: str) -> dict[str, list[Dropped]]:
    """Every labelled pair that does not go on, by prompt: those lost in review, and those not kept."""
    lost = {prompt: list(rows) for prompt, rows in reviewed.lost.items()}
    for pair in where(reviewed, ~kept_B):
        lost.setdefault(pair.prompt_id, []).append(drop(item_of(pair), reason))
    return lost


def item_of(pair: PreferencePair) -> str:
    return f"{pair.prompt_id}:{pair.chosen},{pair.rejected}"


def draw_of(seed: int, pairs: Sequence[PreferencePair]) -> NDArray[np.int64]:
    """(B,) a random number for each pair, which depends on the pair and not on its place: it breaks ties."""
    return np.array([seed_of(seed, p.prompt_id, p.chosen, p.rejected) for p in pairs], dtype=np.int64)


def kept_band(margins_B: Floats, draw_B: NDArray[np.int64], *, share: float, band: Band) -> NDArray[np.intp]:
    """Positions of the kept pairs, ascending: ``share`` of all, rounded to the nearest whole number.

    Equal margins are ordered by ``draw_B``. The middle band leaves out as many above as below, or one more above.
    """
    count = len(margins_B)
    keep = int(share * count + 0.5)
    worst_first = np.lexsort((draw_B, margins_B))
    match band:
        case "top":
            kept = worst_first[count - keep :]
        case "mid":
            kept = worst_first[(count - keep) // 2 : (count - keep) // 2 + keep]
        case "low":
            kept = worst_first[:keep]
        case "random":
            kept = np.argsort(draw_B)[:keep]
        case _:
            assert_never(band)
    return np.sort(kept)


def length_slope(margins_B: Floats, length_gaps_B: Floats) -> float:
    """Margin per token of length difference, by least squares with an intercept; 0 where all gaps are equal."""
    gaps_B = length_gaps_B - length_gaps_B.mean() if len(length_gaps_B) else length_gaps_B
    spread = float(gaps_B @ gaps_B)
    return float(gaps_B @ margins_B) / spread if spread else 0.0


def length_correlation(margins_B: Floats, length_gaps_B: Floats) -> dict[str, float]:
    """Pearson correlation of margins with length differences, as a metric; nothing where either does not vary."""
    if len(margins_B) < 2 or not np.std(margins_B) or not np.std(length_gaps_B):
        return {}
    return {"length_correlation": float(np.corrcoef(margins_B, length_gaps_B)[0, 1])}
