"""In which order couples of completions are worth a label."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Literal, NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from alignment.selection.couples import Couple, pairable
from alignment.selection.evidence import Evidence, Floats
from alignment.types import Candidate, Group, seed_of

Acquire = Literal["certainty", "uncertainty", "entropy", "hybrid", "random_distinct", "random"]


class Offer(NamedTuple):
    """One couple of one prompt, with what it is ranked by."""

    group: Group
    couple: Couple
    margin: float
    """|difference of implicit rewards|, in nats; 0 where no log-probabilities were needed."""
    entropy: float
    """Estimate from the prompt's own completions, in nats; 0 likewise."""
    draw: int
    """Random, from the prompt alone: it orders what nothing else orders."""


class Readable(NamedTuple):
    """A prompt with two or more completions that can be shown to whoever labels."""

    group: Group
    usable: list[int]
    ratios_G: Floats
    logprobs_G: Floats
    rng: np.random.Generator
    draw: int


def needs_logprobs(by: Acquire) -> bool:
    return by not in ("random", "random_distinct")


class Look(NamedTuple):
    """What is looked up for each prompt; opened once, since that goes through a whole round's log-probabilities."""

    ratios: Callable[[Group], Floats]
    logprobs: Callable[[Group], Floats]


def look_into(evidence: Evidence, by: Acquire, *, per_token: bool) -> Look | None:
    """None where no log-probabilities are needed."""
    if not needs_logprobs(by):
        return None
    form = "mean_log_ratio" if per_token else "log_ratio"
    logprobs = evidence.implicit_of("current", "mean_logprob") if per_token else evidence.logprobs_of("current")
    return Look(evidence.implicit_of("current", form), logprobs)


def read(group: Group, look: Look | None, *, seed: int) -> Readable | str:
    """The prompt as acquisition sees it, or why it cannot be acquired. Rewards are not looked at."""
    usable = np.flatnonzero(pairable(group)).tolist()
    if len(usable) < 2:
        return f"a pair needs two candidates: of {len(group.candidates)}, {len(usable)} are whole and not empty"
    ratios_G = logprobs_G = np.zeros(len(group.candidates))
    if look is not None:
        ratios_G, logprobs_G = look.ratios(group), look.logprobs(group)
        if not np.isfinite([ratios_G[usable], logprobs_G[usable]]).all():
            return "a log-probability is not finite"
    draw = seed_of(seed, group.prompt.id)
    return Readable(group, usable, ratios_G, logprobs_G, np.random.default_rng(draw), draw)


def offer_of(prompt: Readable, by: Acquire, *, min_distance: float, degenerate: bool) -> Offer | str:
    """The prompt's one couple, or why it has none."""
    widest = by == "hybrid" and not degenerate
    for i, j in _in_order(prompt, widest=widest):
        if by == "random" or distinct(prompt.group.candidates[i], prompt.group.candidates[j], min_distance):
            entropy = -float(prompt.logprobs_G[prompt.usable].mean())
            return Offer(prompt.group, (i, j), abs(prompt.ratios_G[i] - prompt.ratios_G[j]), entropy, prompt.draw)
    return f"no two completions differ by {min_distance:g} of their tokens"


def _in_order(prompt: Readable, *, widest: bool) -> Iterator[Couple]:
    firsts, seconds = _all_couples(len(prompt.usable))
    order = prompt.rng.permutation(len(firsts))
    if widest:
        ratios_U = prompt.ratios_G[prompt.usable]
        margins = np.abs(ratios_U[firsts] - ratios_U[seconds])
        order = order[np.argsort(-margins[order], kind="stable")]
    return ((prompt.usable[firsts[k]], prompt.usable[seconds[k]]) for k in order)


@cache
def _all_couples(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the first and of the second, for every two of so many, in the order of ``itertools.combinations``."""
    return np.triu_indices(count, k=1)


def ranked(offers: Sequence[Offer], by: Acquire, *, degenerate: bool) -> list[Offer]:
    """The offers in the order in which labels are spent on them."""
    match by:
        case "random" | "random_distinct":
            return sorted(offers, key=lambda o: o.draw)
        case "certainty" | "uncertainty" if degenerate:
            return sorted(offers, key=lambda o: o.draw)
        case "certainty":
            return sorted(offers, key=lambda o: (-o.margin, o.draw))
        case "uncertainty":
            return sorted(offers, key=lambda o: (o.margin, o.draw))
        case "entropy" | "hybrid":
            return sorted(offers, key=lambda o: (-o.entropy, o.draw))
        case _:
            assert_never(by)


def distinct(a: Candidate, b: Candidate, min_distance: float) -> bool:
    return a.text != b.text and token_distance(a.token_ids, b.token_ids) >= min_distance


def token_distance(a: Sequence[int], b: Sequence[int]) -> float:
    """Levenshtein distance over the longer one's length, in [0, 1]; 0 for two empty sequences."""
    if not a or not b:
        return float(bool(a or b))
    columns, target = np.arange(len(b) + 1), np.asarray(b)
    row = columns
    for i, token in enumerate(a, start=1):
        above = np.minimum(row[:-1] + (target != token), row[1:] + 1)
        # each cell is also one more than the cell on its left: a running minimum once its column is taken off
        row = np.minimum.accumulate(np.concatenate(([i], above)) - columns) + columns
    return float(row[-1]) / max(len(a), len(b))
