"""What may be done to a trained policy's weights before it is measured."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from alignment.types import Strategy


class Extrapolate(Strategy):
    """trained + alpha (trained - start): further along the way that training went, without training.

    ExPO, Zheng et al. 2024, arXiv:2404.16792, whose start is the policy before alignment; here it is the policy that
    the round's training started from. Diverges for large alpha: the gate sees the KL to the initial policy.
    """

    type: Literal["extrapolate"] = "extrapolate"
    alpha: PositiveFloat = 0.3
    """0.3 to 0.5 are published as usually good."""

    @property
    def step(self) -> float:
        """How far to go on from the trained weights, in units of (trained - start)."""
        return self.alpha


class Average(Strategy):
    """share trained + (1 - share) start: model averaging, which gives back part of what alignment forgot.

    Lin et al. 2023, arXiv:2309.06256. Over rounds from the promoted policy it is a running average.
    """

    type: Literal["average"] = "average"
    share: float = Field(default=0.5, gt=0, lt=1)
    """Of the trained weights; our default."""

    @property
    def step(self) -> float:
        """How far to go on from the trained weights, in units of (trained - start)."""
        return self.share - 1


Merge = Annotated[Extrapolate | Average, Field(discriminator="type")]
