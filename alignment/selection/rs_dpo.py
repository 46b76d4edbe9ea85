"""RS-DPO: every pair whose reward gap clears a threshold."""

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from alignment.selection.couples import Couple, Rewards, Selection, select_by_reward
from alignment.selection.evidence import NO_EVIDENCE, Evidence
from alignment.selection.pairing import Within, meeting, whole_group
from alignment.types import Group, Strategy


class RSDPO(Strategy):
    """All pairs of a group with sigmoid((r_chosen - r_rejected) / tau) > eta.

    Khaki et al. 2024, arXiv:2402.10038; defaults are theirs (16 completions of the initial policy, eta 0.85, tau 1,
    which asks for a gap above 1.73). Unlike RSO's, these pairs share candidates: G candidates give up to
    G (G - 1) / 2, so a few prompts of wide spread can dominate. eta = 0.5 takes every unequal pair.
    """

    type: Literal["rs_dpo"] = "rs_dpo"
    eta: float = Field(default=0.85, ge=0.5, lt=1)
    tau: PositiveFloat = 1.0
    tau_unit: Literal["reward", "prompt_sd"] = "reward"
    """The paper's tau is in units of reward, so it is to be set anew for each reward model; ``prompt_sd`` (ours)
    measures it in standard deviations of each prompt's own rewards."""
    within: Within = Field(default="group", exclude_if=whole_group)
    max_pairs_per_prompt: PositiveInt | None = None
    """Keeps a random part of a prompt's pairs. The paper has no such bound."""

    def __call__(
        self, groups: Iterable[Group], rng: np.random.Generator, *, reward: str, evidence: Evidence = NO_EVIDENCE
    ) -> Selection:
        """Pairs by the rewards named ``reward``; ``coverage`` is the share of prompts that give any."""
        of = " of one layer" if self.within == "layer" else ""
        selection = select_by_reward(
            groups, rng, self._couples, reward=reward, source=self.type,
            empty=f"no two rewards{of} are far enough apart for eta = {self.eta:g} and tau = {self.tau:g}",
        )  # fmt: skip
        if not (prompts := selection.metrics["prompts"]):
            return selection
        coverage = len({pair.prompt_id for pair in selection.pairs}) / prompts
        return selection.model_copy(update={"metrics": selection.metrics | {"coverage": coverage}})

    @property
    def threshold(self) -> float:
        """Least reward gap in units of tau: the log-odds of eta."""
        return math.log(self.eta / (1 - self.eta))

    def _couples(
        self, group: Group, rewards_G: Rewards, rng: np.random.Generator
    ) -> tuple[list[Couple], dict[str, float]]:
        tau = self.tau if self.tau_unit == "reward" else self.tau * float(np.nanstd(rewards_G))
        layers_L_G = np.array(meeting(self.within, group))
        may_meet_G_G = (layers_L_G[:, :, None] & layers_L_G[:, None, :]).any(axis=0)
        better, worse = np.nonzero(may_meet_G_G & (rewards_G[:, None] - rewards_G[None, :] > tau * self.threshold))
        clear = len(better)
        if self.max_pairs_per_prompt is not None and clear > self.max_pairs_per_prompt:
            kept = np.sort(rng.permutation(clear)[: self.max_pairs_per_prompt])
            better, worse = better[kept], worse[kept]
        return list(zip(better.tolist(), worse.tolist(), strict=True)), {"clear_pairs": float(clear)}
