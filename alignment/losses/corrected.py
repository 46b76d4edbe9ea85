"""DPO with its margin or its weight corrected: for length, for off-policy data, for a second reference."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from alignment.types import Strategy

if TYPE_CHECKING:
    from torch import Tensor


class DPONorm(Strategy):
    """-log sigmoid(beta (a_w/|y_w| - a_l/|y_l|)), with a the log-ratio and |y| the completion's tokens.

    Length-normalised DPO (TRL's ``sigmoid_norm``, which is not RSO's sigmoid-norm: that is plain DPO). beta must be
    larger than DPO's by about the length of a completion.
    """

    type: Literal["dpo_norm"] = "dpo_norm"
    beta: PositiveFloat = 5.0
    """Our default: DPO's 0.1 for completions of 50 tokens."""


class RDPO(Strategy):
    """-log sigmoid(beta D + alpha (|y_w| - |y_l|)).

    Park et al. 2024, arXiv:2403.19159: the reward is r = beta a + alpha |y| + const, so the difference of lengths
    enters with a plus sign. A longer chosen completion explains its label already, and less is learnt from it.
    """

    type: Literal["r_dpo"] = "r_dpo"
    beta: PositiveFloat = 0.1
    alpha: float = Field(default=0.01, ge=0)
    """Reward per token that length alone explains; our default."""


class LDDPO(Strategy):
    """DPO on log-ratios whose tokens beyond min(|y_w|, |y_l|) count ``alpha``.

    Liu et al. 2024, arXiv:2409.06411. 1 is DPO; 0 leaves the longer completion's tail out.
    """

    type: Literal["ld_dpo"] = "ld_dpo"
    beta: PositiveFloat = 0.1
    alpha: float = Field(default=0.5, ge=0, le=1)


class WPO(Strategy):
    """w_w w_l times DPO, w = exp(mean_t [log p_t - log sum_v p_v^2]) under the policy, without gradient.

    Zhou et al. 2024, arXiv:2406.11827, eq. 2: pairs that the policy could have written itself count more. A weight may
    exceed 1, where tokens are likelier than the policy's own draws are on average.
    """

    type: Literal["wpo"] = "wpo"
    beta: PositiveFloat = 0.1
    """Our default."""


class MRPO(Strategy):
    """DPO against the harmonic mixture of two references: 1/pi_ref = alpha/pi_2 + (1 - alpha)/pi_1.

    After Le et al. 2025, arXiv:2405.16388, as its authors' code has it for two references: pi_1 is the run's reference,
    clipped per side to within a share ``clip`` of pi_2's log-probability, and alpha = |d_1|/(|d_1| + |d_2| + 1e-6) with
    d_k = log pi_k(y_w) - log pi_k(y_l) before clipping. Which reference the discriminating weight belongs to is not
    settled: the paper was not read in full. Its split of the clip by the size of each side's mean log-probability is
    left out. Equal references give DPO. In a run pi_1 is the policy that ``reference`` names and pi_2 the other one of
    the initial and the previous policy, so that rounds are DPO until a policy is promoted; that choice is ours.
    """

    type: Literal["mrpo"] = "mrpo"
    beta: PositiveFloat = 0.1
    clip: float = Field(default=0.1, ge=0, lt=1)


def virtual_reference(first_B: "Tensor", second_B: "Tensor", alpha_B: "Tensor", clip: float) -> "Tensor":
    """(B,) log-probability under MRPO's mixture; stable, since it is a log-sum-exp."""
    import torch

    low, high = second_B * (1 + clip), second_B * (1 - clip)
    kept = torch.minimum(torch.maximum(first_B, low), high)
    return -torch.logaddexp(alpha_B.log() - second_B, (-alpha_B).log1p() - kept)


def discrimination(first_B: "Tensor", second_B: "Tensor") -> "Tensor":
    """(B,) MRPO's alpha from how far apart each reference sets the two completions."""
    return first_B.abs() / (first_B.abs() + second_B.abs() + 1e-6)
