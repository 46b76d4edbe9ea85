"""Drafts, refinements of drafts, refinements of those: how many of each there are, and how many are copies."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.types import Candidate, Group


class Generation(NamedTuple):
    """Candidates as many refinements away from a draft as this one's place in the list."""

    completions: int
    distinct: int
    """Texts, counted within each prompt."""
    copies: int
    """Refinements that repeat what they refine, word for word."""


def generation_of(candidates: Sequence[Candidate]) -> list[int]:
    """(G,) refinements between each candidate and the draft it goes back to; 0 for what was drawn under the prompt
    itself, or from a draft of another group."""
    depths: list[int] = []
    for candidate in candidates:
        depths.append(0 if candidate.parent is None else depths[candidate.parent] + 1)
    return depths


def drawn_alike(group: Group) -> list[NDArray[np.bool_]]:
    """(G,) masks of the candidates that were drawn under one prompt: the drafts, and the refinements of each draft and
    feedback. Pairs among them are not told apart by how they were drawn."""
    shown = [(c.parent, c.feedback) for c in group.candidates]
    return [np.array([one == asked for one in shown], dtype=bool) for asked in dict.fromkeys(shown)]


def generations(groups: Iterable[Group]) -> list[Generation]:
    """Over all groups, drafts first. Empty when there are no candidates."""
    texts: dict[int, list[tuple[str, str]]] = {}
    copies: dict[int, int] = {}
    for group in groups:
        for candidate, depth in zip(group.candidates, generation_of(group.candidates), strict=True):
            texts.setdefault(depth, []).append((group.prompt.id, candidate.text))
            refined = None if candidate.parent is None else group.candidates[candidate.parent].text
            copies[depth] = copies.get(depth, 0) + (candidate.text == refined)
    return [Generation(len(texts[d]), len(set(texts[d])), copies[d]) for d in range(len(texts))]
