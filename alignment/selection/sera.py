"""SeRA: pairs reviewed by the policy's own implicit rewards, and pairs it adds by them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeFloat

from alignment.selection.couples import Selection, accounted, pairable
from alignment.selection.evidence import NO_EVIDENCE, Evidence, Floats, ImplicitForm, lengths_of
from alignment.selection.extremes import to_review
from alignment.selection.margins import (
    Band,
    Mask,
    Reviewed,
    draw_of,
    kept_band,
    length_correlation,
    length_slope,
    lost_outside,
    review,
    where,
)
from alignment.types import Group, PreferencePair, Strategy

Rewards = Callable[[Group], Floats]


@dataclass(frozen=True)
class Bootstrapped:
    """The pairs that a policy's implicit rewards add."""

    pairs: list[PreferencePair]
    collapsed: int
    """Prompts whose completions are all alike, or all equal in implicit reward."""


class SeRA(Strategy):
    """Keep the labelled pairs with the largest implicit reward margin, and add pairs the policy labels itself.

    Ko et al. 2025, arXiv:2410.09362: sample selection by implicit reward margin, preference bootstrapping, implicit
    rewards of the current and the previous policy mixed. Their ratios, counts and weights were not to be had: every
    default here is ours. Reviewed are the labelled pairs, or best against worst by reward where none are given.
    Bootstrapped are, of each prompt's candidates that no labelled pair uses, the best against the worst by implicit
    reward; the widest of these are added.

    Where current and initial policy are one, all margins are 0 and any selection would be arbitrary: then every
    labelled pair is kept, none is added, and ``degenerate`` is 1. Review only after a round of training.
    """

    type: Literal["sera"] = "sera"
    keep: float = Field(default=0.7, gt=0, le=1)
    """Share of the labelled pairs."""
    band: Band = "top"
    bootstrap: NonNegativeFloat = 0.3
    """Added pairs per kept pair, at most."""
    min_margin: NonNegativeFloat = 0.0
    """Implicit margin, in the units of ``implicit``, that an added pair must exceed."""
    ensemble: float = Field(default=0.5, ge=0, le=1)
    """Weight of the previous policy's implicit rewards in labelling added pairs; 0 where there is no previous one."""
    implicit: ImplicitForm = "log_ratio"
    """As the loss has it: on another scale lengths would decide."""
    length_residual: bool = False
    """Rank by what of a margin the length difference does not explain (least squares over the reviewed pairs)."""

    def __call__(
        self, groups: Iterable[Group], rng: np.random.Generator, *, reward: str, evidence: Evidence = NO_EVIDENCE
    ) -> Selection:
        """Kept and added pairs. They depend on the whole round, and not on its order."""
        rows = list(groups)
        # before anything else is drawn, so that a first round's pairs are those of best_worst
        base = to_review(rows, evidence.labelled, rng, reward)
        seed = int(rng.integers(2**63))
        current = evidence.implicit_of("current", self.implicit)
        reviewed = review(rows, base.pairs, current)
        degenerate = self._degenerate(rows, evidence)
        if degenerate:
            kept_B, added, slope = np.ones(len(reviewed.pairs), dtype=bool), Bootstrapped([], 0), 0.0
        else:
            slope = length_slope(reviewed.margins_B, reviewed.length_gaps_B) if self.length_residual else 0.0
            kept_B = self._kept(reviewed, slope, seed)
            mixed = self._mixed(current, evidence)
            added = self._added(
                rows, evidence.labelled, where(reviewed, kept_B), lambda g: mixed(g) - slope * lengths_of(g), seed
            )
        kept = where(reviewed, kept_B)
        pairs = (*kept, *added.pairs)
        lost = lost_outside(reviewed, kept_B, f"outside the {self.band} {self.keep:g} of implicit margins")
        dropped = accounted((g.prompt.id for g in rows), {p.prompt_id for p in pairs}, lost, base.reasons)
        counts = {
            "pairs": len(pairs), "dropped": len(dropped), "prompts": len(rows), "reviewed": len(reviewed.pairs),
            "kept": len(kept), "bootstrapped": len(added.pairs), "collapsed": added.collapsed, "degenerate": degenerate,
        }  # fmt: skip
        metrics = {name: float(count) for name, count in counts.items()} | base.missing
        metrics |= {"ensemble": self._weight(evidence), "length_slope": slope}
        return Selection(pairs=pairs, dropped=dropped, metrics=metrics | _margin_metrics(reviewed, kept_B))

    def _degenerate(self, groups: Sequence[Group], evidence: Evidence) -> bool:
        return self.implicit != "mean_logprob" and evidence.unmoved(groups)

    def _kept(self, reviewed: Reviewed, slope: float, seed: int) -> Mask:
        margins_B = reviewed.margins_B - slope * reviewed.length_gaps_B
        kept_B = np.zeros(len(margins_B), dtype=bool)
        kept_B[kept_band(margins_B, draw_of(seed, reviewed.pairs), share=self.keep, band=self.band)] = True
        return kept_B

    def _weight(self, evidence: Evidence) -> float:
        return self.ensemble if "previous" in evidence.logprobs else 0.0

    def _mixed(self, current: Rewards, evidence: Evidence) -> Rewards:
        """(1 - g) r_t + g r_(t-1); r_t alone where there is no previous policy."""
        if not (weight := self._weight(evidence)):
            return current
        previous = evidence.implicit_of("previous", self.implicit)
        return lambda group: (1 - weight) * current(group) + weight * previous(group)

    def _added(
        self,
        groups: Sequence[Group],
        labelled: Sequence[PreferencePair] | None,
        kept: Sequence[PreferencePair],
        values_of: Rewards,
        seed: int,
    ) -> Bootstrapped:
        """At most ``bootstrap`` times as many as are kept, the widest margins first, one of each prompt."""
        taken: dict[str, set[int]] = {}
        for pair in labelled or ():
            taken.setdefault(pair.prompt_id, set()).update((pair.chosen, pair.rejected))
        known = {(p.prompt_id, frozenset((p.chosen, p.rejected))) for p in kept}
        offers: list[PreferencePair] = []
        collapsed = 0
        for group in groups:
            used = taken.get(group.prompt.id, set())
            free = [i for i in np.flatnonzero(pairable(group)).tolist() if i not in used]
            if len(free) < 2:
                continue
            offer = _best_and_worst(group, values_of(group), free)
            collapsed += offer is None
            if offer and (group.prompt.id, frozenset((offer.chosen, offer.rejected))) not in known:
                offers.append(offer)
        wide = [offer for offer in offers if offer.margin is not None and offer.margin > self.min_margin]
        margins_B = np.array([offer.margin for offer in wide], dtype=np.float64)
        widest = np.lexsort((draw_of(seed, wide), -margins_B))[: int(self.bootstrap * len(kept) + 0.5)]
        return Bootstrapped([wide[i] for i in sorted(widest.tolist())], collapsed)


def _best_and_worst(group: Group, values_G: Floats, free: Sequence[int]) -> PreferencePair | None:
    """The widest pair of different texts among ``free``; None where all are equal or fewer than two are finite."""
    values: list[float] = values_G.tolist()  # numpy's numbers one by one cost ten times as much
    finite = [i for i in free if math.isfinite(values[i])]
    if len({group.candidates[i].text for i in finite}) < 2:
        return None
    chosen, rejected = max(finite, key=values.__getitem__), min(finite, key=values.__getitem__)
    if group.candidates[chosen].text == group.candidates[rejected].text:
        return None
    margin = values[chosen] - values[rejected]
    return PreferencePair(
        prompt_id=group.prompt.id, chosen=chosen, rejected=rejected, source="sera_bootstrap", margin=margin
    )


def _margin_metrics(reviewed: Reviewed, kept_B: Mask) -> dict[str, float]:
    """Mean implicit margins of all reviewed and of the kept pairs, and how they go with length."""
    margins_B = reviewed.margins_B
    means = {"implicit_margin": float(margins_B.mean())} if len(margins_B) else {}
    if kept_B.any():
        means["implicit_margin_kept"] = float(margins_B[kept_B].mean())
    return means | length_correlation(margins_B, reviewed.length_gaps_B)
