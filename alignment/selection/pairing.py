"""Which of the accepted candidates meet: in one round at random, or in a knockout."""

from collections.abc import Sequence
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from alignment.sampling.generations import drawn_alike
from alignment.selection.couples import Couple, Rewards
from alignment.types import Group

Pairing = Literal["first_round", "tournament"]
Within = Literal["group", "layer"]
"""Who may meet. ``layer`` (ours) pairs a draft with drafts, and a refinement with those of the same draft and feedback:
refinements are unlike drafts in style and mostly better, so that of a pair across layers a loss can learn the style
(PRS)."""


def whole_group(within: Within) -> bool:
    """Whether ``within`` says nothing that a recipe without it does not say: then it is no part of its identity."""
    return within == "group"


def meeting(within: Within, group: Group) -> list[NDArray[np.bool_]]:
    """(G,) masks of the candidates that may meet each other; every candidate is in one of them."""
    return [np.ones(len(group.candidates), dtype=bool)] if within == "group" else drawn_alike(group)


def paired(how: Pairing, accepted: Sequence[int], rewards_G: Rewards, rng: np.random.Generator) -> list[Couple]:
    """Couples of the accepted candidates of one group."""
    match how:
        case "first_round":
            return first_round(accepted, rng)
        case "tournament":
            return tournament(accepted, rewards_G, rng)
        case _:
            assert_never(how)


def first_round(accepted: Sequence[int], rng: np.random.Generator) -> list[Couple]:
    """Disjoint random couples, n // 2 of them; of an odd number one is left out, at random.

    Liu et al. 2024, arXiv:2309.06657, first-round-rank. Fewer than two give none.
    """
    order: list[int] = rng.permutation(np.asarray(accepted, dtype=np.int64)).tolist()
    even = len(order) // 2 * 2
    return list(zip(order[:even:2], order[1:even:2], strict=True))


def tournament(accepted: Sequence[int], rewards_G: Rewards, rng: np.random.Generator) -> list[Couple]:
    """The first round, and then winners against winners until one is left: n - 1 couples.

    Liu et al. 2024, arXiv:2309.06657, tournament-rank. Higher rewards are met more often: the best is in about
    log2(n) couples. An odd one out goes on without a game; of equals either goes on, by the draw.
    """
    standing: list[int] = rng.permutation(np.asarray(accepted, dtype=np.int64)).tolist()
    couples: list[Couple] = []
    while len(standing) > 1:
        even = len(standing) // 2 * 2
        games = list(zip(standing[:even:2], standing[1:even:2], strict=True))
        couples += games
        # the draw was random, so of equals the first is a random one
        standing = [i if rewards_G[i] >= rewards_G[j] else j for i, j in games] + standing[even:]
    return couples
