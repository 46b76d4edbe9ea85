"""Reference-guided filtering: labelled pairs that the reference model already tells apart."""

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from pydantic import Field

from alignment.selection.couples import Selection, accounted
from alignment.selection.evidence import NO_EVIDENCE, Evidence, Floats, lengths_of
from alignment.selection.extremes import to_review
from alignment.selection.margins import Band, draw_of, kept_band, length_correlation, lost_outside, review, where
from alignment.types import Group, Strategy


class ReferenceGuided(Strategy):
    """Keep the share of labelled pairs whose log-probabilities under the initial policy are furthest apart.

    After Diwan et al. 2025, arXiv:2501.15109, who keep 30 to 50% of the pairs by the reference model's probabilities
    alone. Their exact rule was not to be had: score and band are ours, and to be compared, for others find small
    gaps best (arXiv:2508.04149). Pairs are the labelled ones, or best against worst by reward where none are given.
    """

    type: Literal["reference_guided"] = "reference_guided"
    keep: float = Field(default=0.5, gt=0, le=1)
    band: Band = "top"
    score: Literal["signed", "absolute"] = "signed"
    """log pi_initial(chosen) - log pi_initial(rejected): ``signed`` ranks first what the reference orders as the
    label does, ``absolute`` what it tells apart in either direction."""
    per_token: bool = False
    """Means per token: without them length differences decide most of the ranking."""

    def __call__(
        self, groups: Iterable[Group], rng: np.random.Generator, *, reward: str, evidence: Evidence = NO_EVIDENCE
    ) -> Selection:
        """The kept pairs, unchanged. Which are kept depends on the whole round, not on its order."""
        rows, seed = list(groups), int(rng.integers(2**63))
        base = to_review(rows, evidence.labelled, rng, reward)
        reviewed = review(rows, base.pairs, self._values_of(evidence))
        scores_B = np.abs(reviewed.margins_B) if self.score == "absolute" else reviewed.margins_B
        kept_B = np.zeros(len(scores_B), dtype=bool)
        kept_B[kept_band(scores_B, draw_of(seed, reviewed.pairs), share=self.keep, band=self.band)] = True
        pairs = tuple(where(reviewed, kept_B))
        lost = lost_outside(reviewed, kept_B, f"outside the {self.band} {self.keep:g}")
        dropped = accounted((g.prompt.id for g in rows), {p.prompt_id for p in pairs}, lost, base.reasons)
        counts = {"pairs": len(pairs), "dropped": len(dropped), "prompts": len(rows), "reviewed": len(reviewed.pairs)}
        metrics = {name: float(count) for name, count in counts.items()} | base.missing
        return Selection(
            pairs=pairs,
            dropped=dropped,
            metrics=metrics | length_correlation(reviewed.margins_B, reviewed.length_gaps_B),
        )

    def _values_of(self, evidence: Evidence) -> Callable[[Group], Floats]:
        logprobs = evidence.logprobs_of("initial")
        return (lambda group: logprobs(group) / lengths_of(group)) if self.per_token else logprobs
