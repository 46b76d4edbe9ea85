"""Best against worst: as pairs, and as sets for losses that compare several completions at once."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from alignment.selection.couples import Couple, Rewards, Selection, select_by_reward
from alignment.selection.evidence import NO_EVIDENCE, Evidence
from alignment.selection.pairing import Within, meeting, whole_group
from alignment.types import Group, PreferencePair, Strategy


class BestWorst(Strategy):
    """Pair each group's best candidate with its worst, then the second best with the second worst, and so on.

    Every candidate is in at most one pair, so a group gives at most G // 2. Equal rewards are ordered at random.
    Candidates that were cut, are empty or have no score are left out.
    """

    type: Literal["best_worst"] = "best_worst"
    pairs_per_prompt: PositiveInt = 1
    min_margin: NonNegativeFloat = 0.0
    """Pairs whose reward gap is at most this carry no signal and are dropped."""
    within: Within = Field(default="group", exclude_if=whole_group)
    """With ``layer`` the widest gaps of a prompt come first, whichever layer they are of."""

    def __call__(
        self, groups: Iterable[Group], rng: np.random.Generator, *, reward: str, evidence: Evidence = NO_EVIDENCE
    ) -> Selection:
        """Pairs by the rewards named ``reward``. What one prompt yields does not depend on the other prompts."""
        return select_by_reward(
            groups, rng, self._couples, reward=reward, source=self.type, min_margin=self.min_margin,
            empty="no layer has two completions that may be paired",
        )  # fmt: skip

    def _couples(
        self, group: Group, rewards_G: Rewards, rng: np.random.Generator
    ) -> tuple[list[Couple], dict[str, float]]:
        if self.within == "group":
            return _inward(rewards_G, rng)[: self.pairs_per_prompt], {}
        layers = [_inward(np.where(layer, rewards_G, np.nan), rng) for layer in meeting("layer", group)]
        widest = sorted((c for layer in layers for c in layer), key=lambda c: rewards_G[c[1]] - rewards_G[c[0]])
        return widest[: self.pairs_per_prompt], {}


class TopK(Strategy):
    """The k best candidates of each group as one set against k others, for losses on several samples.

    Wang et al. 2024, arXiv:2410.12138, compare groups of completions; that the sets are the top and the bottom k is
    ours. A set comparison is stored as k disjoint pairs of one prompt: the mean of their margins is the mean
    log-ratio of the chosen set minus that of the rejected set, whoever is paired with whom. No completion is in both
    sets; a group of fewer than 2k gives sets of half its size.
    """

    type: Literal["top_k"] = "top_k"
    k: PositiveInt = 2
    against: Literal["bottom", "lower_half"] = "bottom"
    """The k worst, or k at random of the worse half."""

    def __call__(
        self, groups: Iterable[Group], rng: np.random.Generator, *, reward: str, evidence: Evidence = NO_EVIDENCE
    ) -> Selection:
        """Pairs by the rewards named ``reward``. What one prompt yields does not depend on the other prompts."""
        return select_by_reward(groups, rng, self._couples, reward=reward, source=self.type)

    def _couples(
        self, group: Group, rewards_G: Rewards, rng: np.random.Generator
    ) -> tuple[list[Couple], dict[str, float]]:
        worst_first = worst_to_best(rewards_G, rng)
        k = min(self.k, len(worst_first) // 2)
        worse = worst_first[: len(worst_first) // 2]
        rejected = worst_first[:k] if self.against == "bottom" else rng.permutation(worse)[:k].tolist()
        return list(zip(worst_first[-k:], rejected, strict=True)), {"set_size": float(k)}


def to_review(
    groups: Iterable[Group], labelled: Sequence[PreferencePair] | None, rng: np.random.Generator, reward: str
) -> Selection:
    """The labelled pairs, or best against worst by reward where none are given."""
    if labelled is None:
        return BestWorst()(groups, rng, reward=reward)
    return Selection(pairs=tuple(labelled), dropped=(), metrics={})


def _inward(rewards_G: Rewards, rng: np.random.Generator) -> list[Couple]:
    """Best and worst, second best and second worst, and so on."""
    worst_first = worst_to_best(rewards_G, rng)
    return [(worst_first[-1 - i], worst_first[i]) for i in range(len(worst_first) // 2)]


def worst_to_best(rewards_G: Rewards, rng: np.random.Generator) -> list[int]:
    """Indices of the candidates that may be paired, by reward, equals in random order."""
    valid = rng.permutation(np.flatnonzero(np.isfinite(rewards_G)))
    return valid[np.argsort(rewards_G[valid], kind="stable")].tolist()
