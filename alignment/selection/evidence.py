"""What a round knows about its groups beside rewards: log-probabilities under named policies, and pairs with labels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignment.errors import UserError
from alignment.types import Group, PreferencePair, SequenceLogprobs

Floats = NDArray[np.float64]

PolicyName = Literal["current", "previous", "initial"]
"""``current`` sampled this round's completions; ``previous`` stood before it was promoted; ``initial`` is the policy
the run began with."""

ImplicitForm = Literal["log_ratio", "mean_log_ratio", "mean_logprob"]
"""The reward a loss implies, up to its beta, which cancels in every ranking: log pi - log pi_ref summed over tokens
(DPO, hinge), its mean per token (length-averaged IPO), or log pi per token without a reference (SimPO)."""


def _nothing() -> dict[PolicyName, Sequence[SequenceLogprobs]]:
    return {}


@dataclass(frozen=True)
class Evidence:
    """What a selector may look at beside rewards. Empty unless a step of the round computed it."""

    logprobs: Mapping[PolicyName, Sequence[SequenceLogprobs]] = field(default_factory=_nothing)
    """By policy, one row per group, all by the training stack in one precision."""
    labelled: Sequence[PreferencePair] | None = None
    """Pairs whose order is known already, as indices into the same groups; None where rewards are to decide."""

    def logprobs_of(self, policy: PolicyName) -> Callable[[Group], Floats]:
        """Log-probability of each candidate of a group under ``policy``, (G,), in nats, summed over its tokens.

        Raises UserError where none were computed, ValueError where a group's are not there or are of other tokens.
        """
        if policy not in self.logprobs:
            raise UserError(
                f"select: log-probabilities under the {policy} policy are needed, and there are "
                f"{sorted(self.logprobs) or 'none'}: compute them with the logprobs step"
            )
        rows = {row.prompt_id: row for row in self.logprobs[policy]}

        def of(group: Group) -> Floats:
            row = rows.get(group.prompt.id)
            if row is None or row.lengths != tuple(len(c.token_ids) for c in group.candidates):
                raise ValueError(f"prompt {group.prompt.id}: log-probabilities under {policy} are of other completions")
            return np.asarray(row.logprobs, dtype=np.float64)

        return of

    def log_ratios_of(self, policy: PolicyName, reference: PolicyName) -> Callable[[Group], Floats]:
        """log pi - log pi_ref of each candidate, (G,), in nats. Exactly 0 where both policies are the same."""
        over, under = self.logprobs_of(policy), self.logprobs_of(reference)
        return lambda group: over(group) - under(group)

    def unmoved(self, groups: Iterable[Group]) -> bool:
        """Whether the current policy gives all completions what the initial one gives them, so that every implicit
        reward is 0. A log-probability that is not finite says nothing of it."""
        ratios = self.log_ratios_of("current", "initial")
        return not any(np.any(np.isfinite(of_G) & (of_G != 0)) for of_G in map(ratios, groups))

    def implicit_of(self, policy: PolicyName, form: ImplicitForm) -> Callable[[Group], Floats]:
        """Implicit reward of each candidate against the initial policy, (G,), in nats (per token for the means)."""
        if form == "mean_logprob":
            plain = self.logprobs_of(policy)
            return lambda group: plain(group) / lengths_of(group)
        ratios = self.log_ratios_of(policy, "initial")
        return ratios if form == "log_ratio" else lambda group: ratios(group) / lengths_of(group)


NO_EVIDENCE = Evidence()


def lengths_of(group: Group) -> NDArray[np.int64]:
    """(G,) completion tokens."""
    return np.array([len(c.token_ids) for c in group.candidates], dtype=np.int64)
