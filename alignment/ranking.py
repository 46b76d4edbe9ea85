"""How a policy and a reward rank held-out labelled pairs, and what training did to their likelihood.

All log-probabilities are the training stack's, of the same completions under the policy and under the run's initial
one. A prompt counts once, whatever its number of pairs.
"""

from collections.abc import Callable, Sequence

import numpy as np

from alignment.metrics import Floats, paired_bootstrap
from alignment.types import Group, PreferencePair, SequenceLogprobs, seed_of

Metrics = dict[str, float | None]

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def ranking_metrics(
    pairs: Sequence[PreferencePair],
    groups: Sequence[Group],
    policy_logprobs: Sequence[SequenceLogprobs],
    initial_logprobs: Sequence[SequenceLogprobs],
    *,
    reward: str | None,
    rng: np.random.Generator,
    resamples: int,
) -> Metrics:
    """Ranking accuracies, drifts and margins over pairs, each mean with a 95% interval over prompts.

    ``ranking_accuracy``: log pi(y_w|x) > log pi(y_l|x), by likelihood alone, which training can leave at chance while
    the implicit reward improves (Chen et al. 2024, arXiv:2405.19534). ``reward_ranking_accuracy``: the reward named
    ``reward`` orders the pair as its label does. Ties count half; a pair without a score is left out of the latter,
    and ``reward_ranking_missing`` is their share.

    ``chosen_drift`` and ``rejected_drift``: mean log pi - log pi_0 in nats. Where that of chosen falls, probability
    goes to neither completion (likelihood displacement, Razin et al. 2024, arXiv:2410.08847); ``displaced_rate`` is
    the share of pairs whose chosen completion lost likelihood. ``implicit_margin_q10`` to ``_q90``: quantiles over
    pairs of the difference of drifts. Every value is None without pairs.
    """
    policy, initial = _by_prompt(policy_logprobs), _by_prompt(initial_logprobs)
    seed = int(rng.integers(2**63))

    def over_prompts(name: str, value: Callable[[PreferencePair], float]) -> Metrics:
        return _interval(name, pairs, value, seed, resamples)

    def drift(pair: PreferencePair, i: int) -> float:
        return float(policy[pair.prompt_id][i] - initial[pair.prompt_id][i])

    def margin(pair: PreferencePair) -> float:
        return drift(pair, pair.chosen) - drift(pair, pair.rejected)

    def likelier(pair: PreferencePair) -> float:
        return _order(policy[pair.prompt_id][pair.chosen] - policy[pair.prompt_id][pair.rejected])

    return (
        over_prompts("ranking_accuracy", likelier)
        | over_prompts("chosen_drift", lambda pair: drift(pair, pair.chosen))
        | over_prompts("rejected_drift", lambda pair: drift(pair, pair.rejected))
        | over_prompts("displaced_rate", lambda pair: float(drift(pair, pair.chosen) < 0))
        | _quantiles([margin(pair) for pair in pairs])
        | _of_reward(pairs, groups, reward, seed, resamples)
    )


def _of_reward(
    pairs: Sequence[PreferencePair], groups: Sequence[Group], reward: str | None, seed: int, resamples: int
) -> Metrics:
    rewards = {g.prompt.id: g.rewards.get(reward or "") for g in groups}

    def gap(pair: PreferencePair) -> float:
        rewards_G = rewards[pair.prompt_id]
        chosen, rejected = (rewards_G[pair.chosen], rewards_G[pair.rejected]) if rewards_G else (None, None)
        return np.nan if chosen is None or rejected is None else chosen - rejected

    scored = [pair for pair in pairs if not np.isnan(gap(pair))]
    missing = 1 - len(scored) / len(pairs) if pairs and reward else None
    accuracy = _interval("reward_ranking_accuracy", scored, lambda pair: _order(gap(pair)), seed, resamples)
    return accuracy | {"reward_ranking_missing": missing}


def _order(difference: float) -> float:
    return float((np.sign(difference) + 1) / 2)


def _quantiles(margins: Sequence[float]) -> Metrics:
    names = [f"implicit_margin_q{round(100 * q)}" for q in QUANTILES]
    values: list[float | None] = [float(v) for v in np.quantile(margins, QUANTILES)] if margins else [None] * len(names)
    return dict(zip(names, values, strict=True))


def _interval(
    name: str,
    pairs: Sequence[PreferencePair],
    value: Callable[[PreferencePair], float],
    seed: int,
    resamples: int,
) -> Metrics:
    values: dict[str, list[float]] = {}
    for pair in pairs:
        values.setdefault(pair.prompt_id, []).append(value(pair))
    means_P = np.array([np.mean(of_prompt) for of_prompt in values.values()], dtype=np.float64)
    if len(means_P) < 2:
        return {name: float(means_P[0]) if len(means_P) else None, f"{name}_low": None, f"{name}_high": None}
    mean, low, high = paired_bootstrap(means_P, np.random.default_rng(seed_of(seed, name)), resamples)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _by_prompt(rows: Sequence[SequenceLogprobs]) -> dict[str, Floats]:
    return {row.prompt_id: np.asarray(row.logprobs, dtype=np.float64) for row in rows}
