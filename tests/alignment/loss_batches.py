"""Batches of pairs for tests of losses, and one of every loss."""

from dataclasses import replace
from typing import get_args

import torch

from alignment.losses import (
    AOT,
    BCO,
    CDPO,
    CPO,
    DPO,
    DPOP,
    EXO,
    IPO,
    IREPO,
    LDDPO,
    RPO,
    RWR,
    SFT,
    DiscoPOP,
    Loss,
    PairLogprobs,
    RobustDPO,
    preference_loss,
)  # fmt: skip

EVERY_LOSS = [kind(votes=10) if kind is IREPO else kind() for kind in get_args(get_args(Loss)[0])]
EVERY_OTHER_WAY = [
    IPO(normalise="token_mean"), BCO(shift="zero"), AOT(compare="unpaired", label_smoothing=0.1), RPO(normalise="sum"),
    RPO(normalise="step_token_mean"), CPO(normalise="sum"), SFT(normalise="sum"), SFT(normalise="token_mean"),
    RWR(normalise="step_token_mean", tau=1e-3), LDDPO(alpha=0), DiscoPOP(tau=0.99), EXO(label_smoothing=1e-6),
    CDPO(label_smoothing=0), RobustDPO(flip_rate=0.49), DPOP(penalty=50), DPO(beta=10),
]  # fmt: skip
"""What no default shows: other normalisations, comparisons and extremes of the numbers."""


def row(values, **how) -> torch.Tensor:
    return torch.tensor(values, dtype=how.pop("dtype", torch.float64), **how)


def pairs(policy_chosen, policy_rejected, ref_chosen, ref_rejected, *, lengths=None, **more) -> PairLogprobs:
    """B pairs in float64; ``lengths`` are (chosen, rejected)."""
    if lengths:
        more |= {"chosen_lengths": torch.tensor(lengths[0]), "rejected_lengths": torch.tensor(lengths[1])}
    return PairLogprobs(row(policy_chosen), row(policy_rejected), row(ref_chosen), row(ref_rejected), **more)


def of_logratios(chosen, rejected, **more) -> PairLogprobs:
    """Pairs with these log-ratios: the policy's log-probabilities are these numbers, the reference's are 0."""
    zeros = [0.0] * len(chosen)
    return pairs(chosen, rejected, zeros, zeros, **more)


def with_everything(lp: PairLogprobs) -> PairLogprobs:
    """All that any loss needs: lengths 10 and 5, two pairs to a prompt, a reward margin of 1, half of each side's
    log-probability in its first tokens, weights of 1 and a second reference one nat higher."""
    like, count = lp.policy_chosen, len(lp.policy_chosen)
    halves = (lp.policy_chosen / 2, lp.policy_rejected / 2, lp.ref_chosen / 2, lp.ref_rejected / 2)
    return replace(
        lp,
        chosen_lengths=torch.full((count,), 10),
        rejected_lengths=torch.full((count,), 5),
        prompts=torch.arange(count) // 2,
        reward_margin=torch.ones_like(like),
        chosen_confidence=torch.zeros_like(like),
        rejected_confidence=torch.zeros_like(like),
        shared=PairLogprobs(*halves),
        second=replace(lp, ref_chosen=lp.ref_chosen + 1, ref_rejected=lp.ref_rejected + 1),
    )


def slope(loss, lp: PairLogprobs, side: str = "policy_chosen", p=None) -> list[float]:
    """d loss / d log pi of one side, per pair."""
    moved = getattr(lp, side).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(preference_loss(loss, replace(lp, **{side: moved}), p).sum(), moved)
    return gradient.tolist()
