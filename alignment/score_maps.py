"""Score maps: from a reward model's own scale to the goals a policy is asked for, fixed for a run."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, model_validator

from alignment.errors import UserError
from alignment.types import Strategy, digest_of

LOWEST, HIGHEST = 1.0, 10.0
"""Goals of a fitted map."""


class ScoreMap(Strategy):
    """Straight lines between knots: a reward of ``rewards[i]`` is the goal ``goals[i]``, and nothing beyond the ends.

    The default takes scores from 1 to 10 as they are, which is what RAD trains on (arXiv:2410.08067: UltraFeedback's
    overall score).
    """

    type: Literal["given"] = "given"
    rewards: tuple[FiniteFloat, ...] = Field(default=(LOWEST, HIGHEST), min_length=2)
    goals: tuple[FiniteFloat, ...] = Field(default=(LOWEST, HIGHEST), min_length=2)
    decimals: int = Field(default=1, ge=0, le=3)
    """Goals are rounded to so many: what a policy is asked for is read, not measured."""

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        for name, knots in (("rewards", self.rewards), ("goals", self.goals)):
            if any(a >= b for a, b in pairwise(knots)):
                raise ValueError(f"scale.{name} = {list(knots)}: knots increase, each above the one before")
        if len(self.rewards) != len(self.goals):
            raise ValueError(f"scale has {len(self.rewards)} rewards for {len(self.goals)} goals; give as many")
        return self

    @property
    def version(self) -> str:
        """Twelve hex digits that name this map: goals of another version mean something else."""
        return digest_of(self.model_dump(mode="json"))[:12]

    def __call__(self, reward: float) -> float | None:
        """The goal of a reward; None outside the map (NaN and infinities too): never the nearest end."""
        if not self.rewards[0] <= reward <= self.rewards[-1]:
            return None
        return round(float(np.interp(reward, self.rewards, self.goals)), self.decimals)


class AffineFit(Strategy):
    """To be fitted once, on the initial policy's held-out rewards: their mean becomes 5.5, and ``sds`` standard
    deviations to either side 1 and 10 (ours; the paper maps on-policy scores in a way it does not tell)."""

    type: Literal["affine"] = "affine"
    sds: PositiveFloat = 3.0
    """A policy that improves by more than this leaves the map, and its best pairs are dropped and counted."""
    decimals: int = Field(default=1, ge=0, le=3)

    def fit(self, rewards: Sequence[float]) -> ScoreMap:
        """Rewards that are no finite number are left out. UserError for rewards without spread."""
        finite = _finite(rewards)
        mean, reach = float(np.mean(finite)), self.sds * float(np.std(finite))
        return _fitted((mean - reach, mean + reach), (LOWEST, HIGHEST), self.decimals)


class QuantileFit(Strategy):
    """To be fitted once, on the initial policy's held-out rewards: evenly spaced quantiles become evenly spaced goals
    from 1 to 10 (ours). Beyond the lowest and the highest of those rewards there is no goal."""

    type: Literal["quantile"] = "quantile"
    knots: PositiveInt = Field(default=10, ge=2)
    decimals: int = Field(default=1, ge=0, le=3)

    def fit(self, rewards: Sequence[float]) -> ScoreMap:
        """Of knots with one reward the lowest goal stays. Rewards that are no finite number are left out. UserError for
        rewards without spread."""
        goals = np.linspace(LOWEST, HIGHEST, self.knots)
        quantiles, first = np.unique(np.quantile(_finite(rewards), np.linspace(0, 1, self.knots)), return_index=True)
        return _fitted(quantiles.tolist(), goals[first].tolist(), self.decimals)


Scale = Annotated[ScoreMap | AffineFit | QuantileFit, Field(discriminator="type")]


def _finite(rewards: Sequence[float]) -> list[float]:
    finite = [reward for reward in rewards if math.isfinite(reward)]
    if not finite:
        raise UserError(
            f"relabel.scale: of {len(rewards)} held-out rewards of the initial policy none is a finite number, so no "
            "scale fits them; see why they are missing, or give one with relabel.scale.type = 'given'"
        )
    return finite


def _fitted(rewards: Sequence[float], goals: Sequence[float], decimals: int) -> ScoreMap:
    if len(rewards) < 2 or not rewards[0] < rewards[-1]:
        raise UserError(
            f"relabel.scale: the initial policy's held-out rewards are all {rewards[0]:g}, so no scale fits them; give "
            "one with relabel.scale.type = 'given'"
        )
    return ScoreMap(rewards=tuple(rewards), goals=tuple(goals), decimals=decimals)
