"""RSO: statistical rejection sampling, as a choice of candidates."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_serializer

from alignment.errors import UserError
from alignment.selection.couples import TOO_FEW, Couple, Rewards, Selection, finite_or_nan, select_by_reward
from alignment.selection.evidence import NO_EVIDENCE, Evidence
from alignment.selection.pairing import Pairing, Within, meeting, paired, whole_group
from alignment.types import Group, Strategy


class RSO(Strategy):
    """Statistical rejection sampling: accept candidates as if the optimal policy had drawn them, then pair them.

    Liu et al. 2024, arXiv:2309.06657, algorithm 1 and first-round ranking; defaults are theirs (8 of 64 candidates).
    A candidate is accepted with probability exp((r - r_max) / beta), ``r_max`` over those still waiting, in sweeps
    without replacement. Unlike their listing, candidates are told apart by index, so a text drawn twice counts
    twice, and when a sweep accepts more than are wanted a random part of it is kept rather than the first in the list.

    beta = 0 keeps the best ``num_accepted``, best first; beta = inf keeps any at random (the paper's
    sft-sample-rank); equal rewards are all accepted. Candidates that were cut, are empty or have no score are left
    out before the maximum is taken.
    """

    type: Literal["rso"] = "rso"
    beta: NonNegativeFloat = 0.5
    """Temperature of acceptance: meaningful only beside the spread of rewards within a prompt. Not the loss's beta."""
    beta_unit: Literal["reward", "prompt_sd"] = "reward"
    """The paper's beta is in units of reward. ``prompt_sd`` (ours) measures it in standard deviations of each
    prompt's own rewards, which keeps its meaning when a reward model's scale differs or drifts."""
    num_accepted: PositiveInt = 8
    method: Literal["sweeps", "gumbel"] = "sweeps"
    """``gumbel`` (ours) takes the top ``num_accepted`` of r / beta plus Gumbel noise: one pass, always exactly as many
    as asked for, drawn one after another from softmax(r / beta) over those left. Its bias at few candidates is
    larger than that of sweeps."""
    pairing: Pairing = "first_round"
    within: Within = Field(default="group", exclude_if=whole_group)
    """Who of the accepted may meet. Acceptance itself is over all candidates of a prompt."""
    target: Literal["current", "initial"] = "current"
    """Which policy exp(r / beta) tilts. Plain acceptance tilts the one that sampled, so t rounds compound to the
    initial policy times exp(t r / beta). ``initial`` (ours) keeps the first target: it accepts on
    r / beta + log pi_initial - log pi_current."""
    max_log_ratio: PositiveFloat = 20.0
    """Nats to which that log-ratio is clipped (``target = "initial"``): over long completions its spread can outgrow
    the rewards'. How many were clipped is reported."""

    def accept(
        self,
        rewards_G: ArrayLike | Sequence[float | None],
        rng: np.random.Generator,
        *,
        log_ratios_G: ArrayLike | None = None,
    ) -> list[int]:
        """Indices of the accepted candidates, in the order of acceptance: at most ``num_accepted``, none twice.

        ``rewards_G`` (G,); None, NaN and infinite rewards are never accepted. With fewer than ``num_accepted`` valid
        rewards, all of them. ``log_ratios_G`` (G,) is log pi_initial - log pi_current in nats, clipped already; a
        candidate whose log-ratio is not finite is never accepted.
        """
        ratios_G = None if log_ratios_G is None else np.asarray(log_ratios_G, dtype=np.float64)
        scores_G, beta = self._scores(finite_or_nan(rewards_G), ratios_G)
        return [i for sweep in self._sweeps(scores_G, beta, rng) for i in sweep]

    def __call__(
        self, groups: Iterable[Group], rng: np.random.Generator, *, reward: str, evidence: Evidence = NO_EVIDENCE
    ) -> Selection:
        """Pairs by the rewards named ``reward``. What one prompt yields does not depend on the other prompts."""
        ratios_of = evidence.log_ratios_of("initial", "current") if self.target == "initial" else None

        def couples_of(
            group: Group, rewards_G: Rewards, rng: np.random.Generator
        ) -> tuple[list[Couple], dict[str, float]]:
            return self._couples(group, rewards_G, rng, _proposal_ratios(group, ratios_of))

        empty = "fewer than two candidates of one layer were accepted" if self.within == "layer" else TOO_FEW
        return select_by_reward(groups, rng, couples_of, reward=reward, source=self.type, empty=empty)

    def _couples(
        self, group: Group, rewards_G: Rewards, rng: np.random.Generator, log_ratios_G: Rewards | None
    ) -> tuple[list[Couple], dict[str, float]]:
        clipped_G = None if log_ratios_G is None else log_ratios_G.clip(-self.max_log_ratio, self.max_log_ratio)
        scores_G, beta = self._scores(rewards_G, clipped_G)
        sweeps = self._sweeps(scores_G, beta, rng)
        accepted = [i for sweep in sweeps for i in sweep]
        if not accepted:  # no log-ratio of a scored candidate is finite
            return [], {}
        facts = self._health(rewards_G, acceptance_gap(scores_G[np.isfinite(scores_G)], beta), accepted, len(sweeps))
        if log_ratios_G is not None:
            facts["log_ratio_sd"] = float(np.nanstd(log_ratios_G))
            facts["log_ratio_clipped"] = float(np.mean(np.abs(log_ratios_G) > self.max_log_ratio))
        meetings = [[i for i in accepted if layer_G[i]] for layer_G in meeting(self.within, group)]
        return [couple for met in meetings for couple in paired(self.pairing, met, rewards_G, rng)], facts

    def _sweeps(self, scores_G: Rewards, beta: float, rng: np.random.Generator) -> list[list[int]]:
        """Accepted indices of each sweep. Each accepts its maximum, so there are at most ``num_accepted``."""
        waiting, wanted = np.flatnonzero(np.isfinite(scores_G)), self.num_accepted
        if self.method == "gumbel":
            return [_gumbel_order(scores_G[waiting], beta, waiting, rng)[:wanted]] if waiting.size else []
        sweeps: list[list[int]] = []
        while wanted > 0 and waiting.size > 0:
            gap = acceptance_gap(scores_G[waiting], beta)
            passed = rng.exponential(size=waiting.size) >= gap  # u <= exp(-gap), without underflow
            sweeps.append(rng.permutation(waiting[passed])[:wanted].tolist())
            wanted -= len(sweeps[-1])
            waiting = waiting[~passed]
        return sweeps

    def _scores(self, rewards_G: Rewards, log_ratios_G: Rewards | None) -> tuple[Rewards, float]:
        """(G,) scores and their temperature: score / temperature is what acceptance compares."""
        beta = self._temperature(rewards_G)
        if log_ratios_G is None:
            return rewards_G, beta
        if math.isinf(beta):  # the rewards count for nothing: the target is the initial policy itself
            return np.where(np.isfinite(rewards_G), log_ratios_G, np.nan), 1.0
        return rewards_G + beta * log_ratios_G, beta

    def _temperature(self, rewards_G: Rewards) -> float:
        """beta in units of reward. Equal rewards have no spread to measure it in, and weigh alike at every beta."""
        if self.beta_unit == "reward" or self.beta == 0:
            return self.beta
        valid_V = rewards_G[np.isfinite(rewards_G)]
        return self.beta * float(valid_V.std()) if valid_V.size and np.ptp(valid_V) > 0 else math.inf

    def _health(self, rewards_G: Rewards, gap_V: Rewards, accepted: list[int], sweeps: int) -> dict[str, float]:
        """``starved`` where the weights sum to less than are wanted: there the accepted are nearer to the top few than
        to draws from the target. ``beta_rel`` is beta in standard deviations of the prompt's rewards."""
        weights_V = np.exp(-gap_V)
        expected = float(weights_V.sum())
        reward_sd = float(rewards_G[np.isfinite(rewards_G)].std())
        facts = {
            "accepted": float(len(accepted)),
            "accepted_reward": float(rewards_G[accepted].mean()),
            "short": float(len(accepted) < self.num_accepted),
            "starved": float(expected < self.num_accepted),
            "sweeps": float(sweeps),
            "sum_weights": expected,
            "acceptance_rate": expected / len(weights_V),
            "ess": expected**2 / float(weights_V @ weights_V),
        }
        if reward_sd > 0 and math.isfinite(self.beta):
            facts["beta_rel"] = self.beta / reward_sd if self.beta_unit == "reward" else self.beta
        return facts

    @field_serializer("beta", when_used="json")
    def _beta_in_json(self, beta: float) -> float | str:
        return beta if math.isfinite(beta) else "inf"  # JSON has no infinity


def acceptance_gap(rewards_G: Rewards, beta: float) -> Rewards:
    """(r_max - r) / beta, (G,): minus the logarithm of the acceptance probability. ``rewards_G`` has no NaN.

    0 at the maximum whatever beta is; elsewhere infinite for beta = 0 and 0 for beta = inf.
    """
    top = rewards_G.max()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(rewards_G == top, 0.0, (top - rewards_G) / (beta + 0.0))  # -0.0 would turn the infinity round


def _gumbel_order(scores_V: Rewards, beta: float, indices_V: NDArray[np.intp], rng: np.random.Generator) -> list[int]:
    """All candidates, drawn one after another without replacement from softmax(score / beta) over those left."""
    noisy_V = rng.gumbel(size=scores_V.size) - acceptance_gap(scores_V, beta)
    order = np.lexsort((rng.random(scores_V.size), -scores_V, -noisy_V))  # at beta = 0 the score decides, then a coin
    return indices_V[order].tolist()


def _proposal_ratios(group: Group, ratios_of: Callable[[Group], Rewards] | None) -> Rewards | None:
    if ratios_of is None:
        return None
    if any(c.parent is not None for c in group.candidates):
        raise UserError(
            f"select: prompt {group.prompt.id} has completions that refine a draft, which the policy did not draw from "
            "the prompt alone: select.target = 'initial' needs sampler.type = 'independent'"
        )
    return ratios_of(group)
