"""Losses without a reference: sums or means of the policy's own log-probabilities."""

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from alignment.types import Strategy

if TYPE_CHECKING:
    from torch import Tensor

NLLNorm = Literal["sum", "token_mean", "step_token_mean"]
"""Negative log-likelihood of a completion: summed over its tokens, divided by its own tokens, or divided by the mean
tokens of the optimiser step's completions, so that the mean over pairs is a mean over tokens."""


class Hinge(Strategy):
    """max(0, 1 - gamma (log pi(y_w) - log pi(y_l))).

    SLiC-HF, Zhao et al. 2023, arXiv:2305.10425, in the scale of RSO (arXiv:2309.06657): SLiC's margin is 1/gamma nats.
    SLiC's likelihood term on a reference text is left out, as in RSO's runs. Sensitive to length.
    """

    type: Literal["hinge"] = "hinge"
    gamma: PositiveFloat = 0.05


class SimPO(Strategy):
    """-log sigmoid(beta (log pi(y_w)/|y_w| - log pi(y_l)/|y_l|) - gamma).

    Meng et al. 2024, arXiv:2405.14734, eq. 6. Nothing holds the policy where it was: it wants small learning rates.
    """

    type: Literal["simpo"] = "simpo"
    beta: PositiveFloat = 2.0
    gamma: NonNegativeFloat = 1.0
    """Margin asked for, in units of beta times nats per token; published ratios gamma/beta are 0.3 to 0.55."""


class CPO(Strategy):
    """-log sigmoid(beta (log pi(y_w) - log pi(y_l))) + alpha NLL(y_w): DPO with a uniform reference.

    Xu et al. 2024, arXiv:2401.08417.
    """

    type: Literal["cpo"] = "cpo"
    beta: PositiveFloat = 0.1
    alpha: NonNegativeFloat = 1.0
    normalise: NLLNorm = "token_mean"


class ORPO(Strategy):
    """NLL(y_w)/|y_w| - beta log sigmoid(log odds(y_w) - log odds(y_l)), odds of the per-token geometric mean.

    Hong et al. 2024, arXiv:2403.07691, eqs. 4 to 7, beta the paper's lambda. It grows without bound as a rejected
    completion becomes certain; a mean log-probability that float32 cannot tell from 0 is moved down by one float32
    step, which bounds the odds at 2^23.
    """

    type: Literal["orpo"] = "orpo"
    beta: PositiveFloat = 0.1


class SFT(Strategy):
    """NLL(y_w): supervised training on the chosen completion, once per pair it is in.

    With ``best_worst`` it is best-of-n fine-tuning (RAFT, arXiv:2304.06767). On pairs relabelled by
    ``reward_conditioned`` it is conditional alignment (arXiv:2308.12050), each completion under its own reward. There
    is no negative signal, and entropy shrinks.
    """

    type: Literal["sft"] = "sft"
    normalise: NLLNorm = "step_token_mean"
    """As TRL and most supervised training: every token of the step counts alike."""


class RWR(Strategy):
    """-v log pi(y_w) - (1 - v) log pi(y_l), v = sigmoid((r_w - r_l)/tau).

    Reward-weighted regression, Peters and Schaal 2007, with weights exp(r/tau) normalised over the pair's two
    completions (ours): the forward-KL projection of pi exp(r/tau). No weight exceeds 1. Needs rewards.
    """

    type: Literal["rwr"] = "rwr"
    tau: PositiveFloat = 1.0
    """In units of the reward; our default."""
    normalise: NLLNorm = "token_mean"


class RPO(Strategy):
    """-log sigmoid(beta D) + alpha NLL(y_w): DPO that keeps the chosen completion likely.

    Pang et al. 2024, arXiv:2404.19733 (iterative RPO): alpha 1 with the mean over the completion's tokens. How the NLL
    is normalised decides the scale of alpha: with sums, Liu et al. 2024 (arXiv:2405.16436) have 0.005.
    """

    type: Literal["rpo"] = "rpo"
    beta: PositiveFloat = 0.1
    alpha: float = Field(default=1.0, ge=0)
    normalise: NLLNorm = "token_mean"


FLOAT32_STEP = 2.0**-23


def log_odds(mean_logprobs_B: "Tensor") -> "Tensor":
    """(B,) log(p / (1 - p)) of p = exp(mean log-probability), stable at both ends."""
    import torch

    certain = mean_logprobs_B > -FLOAT32_STEP
    x = torch.where(certain, mean_logprobs_B - FLOAT32_STEP, mean_logprobs_B)
    near = x > -math.log(2)
    # each branch of a where is differentiated, so each gets an argument at which its slope is finite
    log1m_near = (-torch.expm1(torch.where(near, x, -1.0))).log()
    log1m_far = (-torch.where(near, -1.0, x).exp()).log1p()
    return x - torch.where(near, log1m_near, log1m_far)
