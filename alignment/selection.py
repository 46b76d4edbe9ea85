"""Selectors: which candidates of a round become preference pairs."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, NonNegativeFloat, PositiveInt, field_serializer

from alignment.errors import UserError
from alignment.types import Dropped, Group, PreferencePair, Record, Strategy, seed_of

Rewards = NDArray[np.float64]
"""(G,) rewards of one group's candidates; NaN where a candidate may not be paired."""

Couples = list[tuple[int, int]]
"""Two candidate indices each, in no order: the rewards decide which is chosen."""


class Selection(Record):
    """What a selector made of a round."""

    pairs: tuple[PreferencePair, ...]
    dropped: tuple[Dropped, ...]
    """One per prompt without any pair (``item`` is its id), and one per lost pair of the other prompts
    (``item`` is ``id:i,j``)."""
    metrics: dict[str, float]
    """Counts, and means over prompts or pairs. A mean over nothing is left out."""


class BestWorst(Strategy):
    """Pair each group's best candidate with its worst, then the second best with the second worst, and so on.

    Every candidate is in at most one pair, so a group gives at most G // 2. Equal rewards are ordered at random.
    Truncated candidates and those without a score are left out.
    """

    type: Literal["best_worst"] = "best_worst"
    pairs_per_prompt: PositiveInt = 1
    min_margin: NonNegativeFloat = 0.0
    """Pairs whose reward gap is at most this carry no signal and are dropped."""

    def __call__(self, groups: Sequence[Group], rng: np.random.Generator, *, reward: str) -> Selection:
        """Pairs by the rewards named ``reward``. What one prompt yields does not depend on the other prompts."""
        return _select(groups, rng, self._couples, reward=reward, source=self.type, min_margin=self.min_margin)

    def _couples(self, rewards_G: Rewards, rng: np.random.Generator) -> tuple[Couples, dict[str, float]]:
        valid = rng.permutation(np.flatnonzero(np.isfinite(rewards_G)))
        worst_first: list[int] = valid[np.argsort(rewards_G[valid], kind="stable")].tolist()
        count = min(self.pairs_per_prompt, len(worst_first) // 2)
        return [(worst_first[-1 - i], worst_first[i]) for i in range(count)], {}


class RSO(Strategy):
    """Statistical rejection sampling: accept candidates as if the optimal policy had drawn them, then pair at random.

    Liu et al. 2024, arXiv:2309.06657, algorithm 1 and first-round ranking; defaults are theirs (8 of 64 candidates).
    A candidate is accepted with probability exp((r - r_max) / beta), ``r_max`` over those still waiting, in sweeps
    without replacement. Unlike their listing, candidates are told apart by index, so a text drawn twice counts
    twice, and when a sweep accepts more than are wanted a random part of it is kept rather than the first in the list.

    beta = 0 keeps the best ``num_accepted``, best first; beta = inf keeps any at random; equal rewards are all
    accepted. Truncated candidates and those without a score are left out before the maximum is taken.
    """

    type: Literal["rso"] = "rso"
    beta: NonNegativeFloat = 0.5
    """Temperature of acceptance: meaningful only beside the spread of rewards within a prompt. Not the loss's beta."""
    beta_unit: Literal["reward", "prompt_sd"] = "reward"
    """The paper's beta is in units of reward. ``prompt_sd`` (ours) measures it in standard deviations of each
    prompt's own rewards, which keeps its meaning when a reward model's scale differs or drifts."""
    num_accepted: PositiveInt = 8

    def accept(self, rewards_G: ArrayLike | Sequence[float | None], rng: np.random.Generator) -> list[int]:
        """Indices of the accepted candidates, in the order of acceptance: at most ``num_accepted``, none twice.

        ``rewards_G`` (G,); None, NaN and infinite rewards are never accepted. With fewer than ``num_accepted`` valid
        rewards, all of them.
        """
        rewards = _finite_or_nan(rewards_G)
        return [i for sweep in self._sweeps(rewards, rng) for i in sweep]

    def __call__(self, groups: Sequence[Group], rng: np.random.Generator, *, reward: str) -> Selection:
        """Pairs by the rewards named ``reward``. What one prompt yields does not depend on the other prompts."""
        return _select(groups, rng, self._couples, reward=reward, source=self.type, min_margin=0.0)

    def _sweeps(self, rewards_G: Rewards, rng: np.random.Generator) -> list[list[int]]:
        """Accepted indices of each sweep. Each accepts its maximum, so there are at most ``num_accepted``."""
        waiting, wanted = np.flatnonzero(np.isfinite(rewards_G)), self.num_accepted
        beta = self._temperature(rewards_G[waiting]) if waiting.size else 0.0
        sweeps: list[list[int]] = []
        while wanted > 0 and waiting.size > 0:
            gap = acceptance_gap(rewards_G[waiting], beta)
            passed = (rng.exponential(size=waiting.size) > gap) | (gap == 0)  # u < exp(-gap), without underflow
            sweeps.append(rng.permutation(waiting[passed])[:wanted].tolist())
            wanted -= len(sweeps[-1])
            waiting = waiting[~passed]
        return sweeps

    def _couples(self, rewards_G: Rewards, rng: np.random.Generator) -> tuple[Couples, dict[str, float]]:
        sweeps = self._sweeps(rewards_G, rng)
        accepted: list[int] = rng.permutation([i for sweep in sweeps for i in sweep]).tolist()
        even = len(accepted) // 2 * 2  # of an odd number one is left out, at random
        valid_G = rewards_G[np.isfinite(rewards_G)]
        weights = np.exp(-acceptance_gap(valid_G, self._temperature(valid_G)))
        facts = {
            "accepted": float(len(accepted)),
            "short": float(len(accepted) < self.num_accepted),
            "sweeps": float(len(sweeps)),
            "sum_weights": float(weights.sum()),
            "acceptance_rate": float(weights.mean()),
            "ess": float(weights.sum() ** 2 / (weights**2).sum()),
        }
        return list(zip(accepted[:even:2], accepted[1:even:2], strict=True)), facts

    @field_serializer("beta", when_used="json")
    def _beta_in_json(self, beta: float) -> float | str:
        return beta if math.isfinite(beta) else "inf"  # JSON has no infinity

    def _temperature(self, rewards_G: Rewards) -> float:
        return self.beta if self.beta_unit == "reward" else self.beta * float(np.std(rewards_G))


Selector = Annotated[BestWorst | RSO, Field(discriminator="type")]


def acceptance_gap(rewards_G: Rewards, beta: float) -> Rewards:
    """(r_max - r) / beta, (G,): minus the logarithm of the acceptance probability. ``rewards_G`` has no NaN.

    0 at the maximum whatever beta is; elsewhere infinite for beta = 0 and 0 for beta = inf.
    """
    top = rewards_G.max()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(rewards_G == top, 0.0, (top - rewards_G) / beta)


def pairable_rewards(group: Group, reward: str) -> Rewards:
    """(G,) rewards named ``reward``, NaN where the score is missing or the completion was cut at its token limit.

    Raises UserError if the group was never scored by that model.
    """
    if group.candidates and reward not in group.rewards:
        raise UserError(
            f"select: prompt {group.prompt.id} has rewards {sorted(group.rewards)} and none named {reward!r}: "
            "score the completions with it, or select by one that was"
        )
    rewards_G = _finite_or_nan(group.rewards.get(reward, ()))
    truncated_G = np.array([c.finish_reason == "length" for c in group.candidates], dtype=bool)
    return np.where(truncated_G, np.nan, rewards_G)


def _finite_or_nan(rewards_G: ArrayLike | Sequence[float | None]) -> Rewards:
    rewards = np.asarray(rewards_G, dtype=np.float64)  # None becomes NaN
    if rewards.ndim != 1:
        raise ValueError(f"rewards of one group have shape (G,), not {rewards.shape}")
    return np.where(np.isfinite(rewards), rewards, np.nan)


def _select(
    groups: Sequence[Group],
    rng: np.random.Generator,
    couples_of: Callable[[Rewards, np.random.Generator], tuple[Couples, dict[str, float]]],
    *,
    reward: str,
    source: str,
    min_margin: float,
) -> Selection:
    """Each group through ``couples_of`` with a generator of its own, so that order and neighbours change nothing."""
    if len({group.prompt.id for group in groups}) < len(groups):
        raise ValueError("select: two groups share a prompt id, so a pair would name candidates of either")
    seed = int(rng.integers(2**63))
    pairs: list[PreferencePair] = []
    dropped: list[Dropped] = []
    facts: list[dict[str, float]] = []
    for group in groups:
        rewards_G = pairable_rewards(group, reward)
        if np.isfinite(rewards_G).sum() < 2:
            dropped.append(_drop(group.prompt.id, _why_unpairable(group, rewards_G)))
            continue
        couples, measured = couples_of(rewards_G, np.random.default_rng(seed_of(seed, group.prompt.id)))
        made, lost = _label(group, rewards_G, couples, source=source, min_margin=min_margin)
        pairs += made
        dropped += lost if made else [_drop(group.prompt.id, _why_empty(lost))]
        lost_rate = len(lost) / len(couples) if couples else 0.0
        facts.append({**measured, "reward_sd": float(np.nanstd(rewards_G)), "lost_rate": lost_rate})
    return Selection(pairs=tuple(pairs), dropped=tuple(dropped), metrics=_metrics(pairs, dropped, facts))


def _label(
    group: Group, rewards_G: Rewards, couples: Couples, *, source: str, min_margin: float
) -> tuple[list[PreferencePair], list[Dropped]]:
    """The higher reward is chosen. Ties and identical texts, whose loss has no gradient, are dropped."""
    made: list[PreferencePair] = []
    lost: list[Dropped] = []
    for couple in couples:
        rejected, chosen = sorted(couple, key=lambda i: rewards_G[i])
        margin = float(rewards_G[chosen] - rewards_G[rejected])
        at = f"{group.prompt.id}:{chosen},{rejected}"
        if group.candidates[chosen].text == group.candidates[rejected].text:
            lost.append(_drop(at, "identical completions"))
        elif margin == 0:
            lost.append(_drop(at, "equal rewards"))
        elif margin <= min_margin:
            lost.append(_drop(at, f"reward gap of at most min_margin = {min_margin:g}"))
        else:
            pair = PreferencePair(
                prompt_id=group.prompt.id, chosen=chosen, rejected=rejected, source=source, margin=margin
            )
            made.append(pair)
    return made, lost


def _drop(item: str, reason: str) -> Dropped:
    return Dropped(step="select", item=item, reason=reason)


def _why_unpairable(group: Group, rewards_G: Rewards) -> str:
    truncated = sum(c.finish_reason == "length" for c in group.candidates)
    unpairable = int(np.isnan(rewards_G).sum())
    return (
        f"a pair needs two candidates: of {len(group.candidates)}, {truncated} were cut at the token limit and "
        f"{unpairable - truncated} more have no score"
    )


def _why_empty(lost: Sequence[Dropped]) -> str:
    if not lost:
        return "a pair needs two candidates: fewer were accepted"
    reasons = sorted({d.reason for d in lost})
    return f"no pair left of {len(lost)}: {', '.join(reasons)}"


def _metrics(
    pairs: Sequence[PreferencePair], dropped: Sequence[Dropped], facts: Sequence[dict[str, float]]
) -> dict[str, float]:
    means = {key: [f[key] for f in facts] for key in (facts[0] if facts else {})}
    means["margin_mean"] = [p.margin for p in pairs if p.margin is not None]
    counts = {"pairs": float(len(pairs)), "dropped": float(len(dropped))}
    return counts | {key: float(np.mean(values)) for key, values in means.items() if values}
