"""Losses that compare sets: the completions of a prompt, or all margins of an optimiser step."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from alignment.types import Strategy

if TYPE_CHECKING:
    from torch import Tensor


class MultiDPO(Strategy):
    """-log sigmoid(beta (A - B)), with A and B the mean log-ratios of a prompt's chosen and rejected completions.

    mDPO, Wang et al. 2024, arXiv:2410.12138, equation as reconstructed, not read. A - B is the mean margin over the
    prompt's pairs, so a prompt counts by its pairs, and each completion by the pairs it is in. One pair per prompt is
    DPO. Biased where the completions stand for a distribution, since the sigmoid is of a mean.
    """

    type: Literal["multi_dpo"] = "multi_dpo"
    beta: PositiveFloat = 0.1
    """Our default."""


class MultiIPO(Strategy):
    """(A - B - 1/(2 beta))^2, as :class:`MultiDPO`, beta the paper's tau; one pair per prompt is IPO with sums."""

    type: Literal["multi_ipo"] = "multi_ipo"
    beta: PositiveFloat = 0.1
    """Our default."""


class AOT(Strategy):
    """DPO between sorted batches: the i-th smallest of one side meets the i-th smallest of the other.

    Melnyk et al. 2024, arXiv:2406.05882. ``paired`` compares the policy's margins with the reference's,
    ``unpaired`` the log-ratios of chosen with those of rejected completions. The batch is the whole optimiser step, of
    any number of passes and workers. Its terms belong to ranks, so pairs have neither weights nor soft labels.
    """

    type: Literal["aot"] = "aot"
    beta: PositiveFloat = 0.1
    compare: Literal["paired", "unpaired"] = "paired"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)


def mean_over_prompts(values_B: "Tensor", prompts_B: "Tensor") -> "Tensor":
    """(B,) each value replaced by the mean over its prompt's pairs."""
    same_B_B = (prompts_B[:, None] == prompts_B[None, :]).to(values_B.dtype)
    return same_B_B @ values_B / same_B_B.sum(dim=1)


def sorted_margin(upper_B: "Tensor", lower_B: "Tensor") -> "Tensor":
    """(B,) each upper minus the lower of equal rank, in the order of ``upper_B``."""
    import torch

    matched_B = torch.empty_like(lower_B).index_copy(0, upper_B.argsort(), lower_B.sort().values)
    return upper_B - matched_B
