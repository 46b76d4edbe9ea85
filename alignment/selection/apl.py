"""APL: a budget of labels, spent where the policy is sure, torn or varied."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, PositiveInt

from alignment.selection.acquisition import Acquire, Offer, look_into, needs_logprobs, offer_of, ranked, read
from alignment.selection.couples import Selection, drop, missing_rate, named_rewards, refuse_twice
from alignment.selection.evidence import NO_EVIDENCE, Evidence
from alignment.types import Dropped, Group, PreferencePair, Strategy

Oracle = Callable[[Group, int, int], float | None]
"""One label: the probability that the first of two candidates is better. None, or 1/2, is an answer of no use."""


class APL(Strategy):
    """Label the couples that an acquisition function ranks first, one of each prompt, within a budget.

    Muldrew et al. 2024, arXiv:2402.08114. ``certainty``: largest difference of implicit rewards. ``entropy``: prompts
    of highest entropy, estimated as minus the mean summed log-probability of their completions. ``hybrid``: those
    prompts, each with its most certain couple. ``uncertainty``: smallest difference (their ablation).
    ``random_distinct`` (ours): any two completions that differ, the control that part of the gain disappears against;
    ``random``: any two at all, their baseline. The paper labels 64 pairs a step, and each step trains from the initial
    policy on all pairs so far: ``start_from = "initial"`` with ``replay.rounds`` over all rounds.

    Rewards are the oracle, and of no couple but the acquired are they looked at. Before the first update all
    differences are 0: then couples are drawn at random, and ``degenerate`` is 1.
    """

    type: Literal["apl"] = "apl"
    acquire: Acquire = "certainty"
    labels: PositiveInt = 64
    """Labels a round: answers of no use count, and are not asked again."""
    per_token: bool = False
    """Means per token, where the paper sums: sums grow with length."""
    min_distance: float = Field(default=0.1, ge=0, le=1)
    """Share of tokens by which two completions must differ (edit distance; ours), for all but ``random``."""

    def __call__(
        self,
        groups: Iterable[Group],
        rng: np.random.Generator,
        *,
        reward: str,
        evidence: Evidence = NO_EVIDENCE,
        oracle: Oracle | None = None,
    ) -> Selection:
        """Labelled pairs, by ``oracle``, or by the higher of the rewards named ``reward``. The oracle is asked exactly
        ``labels`` times, or once for each couple where there are fewer."""
        rows = list(groups)
        degenerate = self._degenerate(rows, evidence)
        offers, dropped = self._offers(rows, evidence, degenerate, int(rng.integers(2**63)))
        order = ranked(offers, self.acquire, degenerate=degenerate)
        answer = oracle or _by_reward(reward)
        pairs: list[PreferencePair] = []
        for offer in order[: self.labels]:
            pair = _labelled(offer, answer(offer.group, *offer.couple))
            if pair is None:
                dropped.append(drop(offer.group.prompt.id, "the label is a tie or could not be had"))
            else:
                pairs.append(pair)
        dropped += [drop(o.group.prompt.id, "not among those worth a label") for o in order[self.labels :]]
        metrics = self._metrics(rows, order, pairs, dropped, degenerate)
        if oracle is None:
            metrics |= _missing(order[: self.labels], reward)
        return Selection(pairs=tuple(pairs), dropped=tuple(dropped), metrics=metrics)

    def _degenerate(self, groups: Sequence[Group], evidence: Evidence) -> bool:
        return needs_logprobs(self.acquire) and evidence.unmoved(groups)

    def _offers(
        self, groups: Sequence[Group], evidence: Evidence, degenerate: bool, seed: int
    ) -> tuple[list[Offer], list[Dropped]]:
        offers: list[Offer] = []
        dropped: list[Dropped] = []
        seen = set[str]()
        look = look_into(evidence, self.acquire, per_token=self.per_token)
        for group in groups:
            refuse_twice(group.prompt.id, seen)
            prompt = read(group, look, seed=seed)
            offer = prompt
            if not isinstance(prompt, str):
                offer = offer_of(prompt, self.acquire, min_distance=self.min_distance, degenerate=degenerate)
            if isinstance(offer, Offer):
                offers.append(offer)
            else:
                dropped.append(drop(group.prompt.id, str(offer)))
        return offers, dropped

    def _metrics(
        self,
        groups: Sequence[Group],
        order: Sequence[Offer],
        pairs: Sequence[PreferencePair],
        dropped: Sequence[Dropped],
        degenerate: bool,
    ) -> dict[str, float]:
        asked = order[: self.labels]
        counts = {
            "pairs": len(pairs), "dropped": len(dropped), "prompts": len(groups), "labels": len(asked),
            "unusable": len(asked) - len(pairs), "short": len(asked) < self.labels, "degenerate": degenerate,
        }  # fmt: skip
        metrics = {name: float(count) for name, count in counts.items()}
        if asked and needs_logprobs(self.acquire):
            metrics["implicit_margin"] = float(np.mean([o.margin for o in asked]))
            metrics["entropy"] = float(np.mean([o.entropy for o in asked]))
            metrics["entropy_pool"] = float(np.mean([o.entropy for o in order]))
        return metrics


def _labelled(offer: Offer, p: float | None) -> PreferencePair | None:
    if p is None or p == 0.5:
        return None
    i, j = offer.couple
    chosen, rejected = (i, j) if p > 0.5 else (j, i)
    return PreferencePair(
        prompt_id=offer.group.prompt.id, chosen=chosen, rejected=rejected, p=max(p, 1 - p), source="apl"
    )


def _missing(asked: Sequence[Offer], reward: str) -> dict[str, float]:
    scores = [named_rewards(offer.group, reward)[list(offer.couple)] for offer in asked]
    return missing_rate(int(np.isnan(scores).sum()), 2 * len(asked))


def _by_reward(reward: str) -> Oracle:
    def answer(group: Group, i: int, j: int) -> float | None:
        rewards_G = named_rewards(group, reward)
        gap = rewards_G[i] - rewards_G[j]
        return None if np.isnan(gap) or gap == 0 else float(gap > 0)

    return answer
