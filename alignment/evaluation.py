"""One policy's metrics on the held-out prompts: what the gate reads, ``show`` prints and the report plots."""

from collections.abc import Mapping, Sequence

import numpy as np

from alignment.metrics import (
    Floats,
    agreement,
    calibration_error,
    distinct_n,
    kl_estimate,
    length_controlled_win_rate,
    paired_bootstrap,
    prompt_means,
    win_rate,
)
from alignment.types import Group, PreferencePair, SequenceLogprobs, seed_of

Metrics = dict[str, float | None]


def evaluation_metrics(
    new: Sequence[Group],
    old: Sequence[Group] | None,
    *,
    reward: str | None,
    gold: str | None,
    policy_logprobs: Sequence[SequenceLogprobs] | None,
    initial_logprobs: Sequence[SequenceLogprobs] | None,
    rng: np.random.Generator,
    resamples: int,
) -> Metrics:
    """Metrics of the policy that answered ``new``, against the one that answered ``old`` (None: no comparison).

    ``reward`` and ``gold`` name entries of ``Group.rewards``. Log-probabilities are of ``new``'s candidates under
    their own policy and under the run's initial one. Intervals are 95% over prompts. None is what could not be
    measured; scores that are missing are left out and counted in ``failure_rate`` and ``gold_failure_rate``.
    """
    seed = int(rng.integers(2**63))
    measured = _texts(new) | {"failure_rate": _failure_rate(new, old or (), reward)}
    for name, model in (("reward", reward), ("gold", gold)):
        measured |= _rewards(name, model, new, old, seed, resamples)
    measured |= _win_rates(new, old, reward, seed, resamples) | _ratios(new, old)
    measured |= _agreement(new, reward, gold) | {"gold_failure_rate": _failure_rate(new, old or (), gold)}
    return measured | _kl(new, policy_logprobs, initial_logprobs, seed, resamples)


def gains_since(
    new: Sequence[Group],
    first: Sequence[Group],
    *,
    reward: str | None,
    gold: str | None,
    rng: np.random.Generator,
    resamples: int,
) -> Metrics:
    """``reward_gain_initial`` and ``gold_gain_initial``: over the initial policy, which answered ``first``, by prompt.

    Two means can surely differ though their own intervals overlap, since prompts differ more than policies do; here
    that spread is gone. None where no prompt has both scores.
    """
    seed, gains = int(rng.integers(2**63)), Metrics()
    for name, model in (("reward", reward), ("gold", gold)):
        gains |= _interval(f"{name}_gain_initial", _gain(new, first, model), seed, resamples)
    return gains


def pair_accuracy(
    pairs: Sequence[PreferencePair],
    policy_logprobs: Sequence[SequenceLogprobs],
    reference_logprobs: Sequence[SequenceLogprobs],
    *,
    rng: np.random.Generator,
    resamples: int,
) -> Metrics:
    """How often the implicit reward, log pi(y|x) - log pi_ref(y|x), orders held-out pairs as their labels do.

    Ties count half, so a policy equal to its reference has accuracy 1/2. The interval is over prompts; ``pair_margin``
    is the mean difference of log-ratios in nats.
    """
    policy, reference = _by_prompt(policy_logprobs), _by_prompt(reference_logprobs)
    margins: dict[str, list[float]] = {}
    for pair in pairs:
        logratio_G = policy[pair.prompt_id] - reference[pair.prompt_id]
        margins.setdefault(pair.prompt_id, []).append(float(logratio_G[pair.chosen] - logratio_G[pair.rejected]))
    accuracy_P = np.array([np.mean((np.sign(m) + 1) / 2) for m in margins.values()], dtype=np.float64)
    margin_P = np.array([np.mean(m) for m in margins.values()], dtype=np.float64)
    seed = int(rng.integers(2**63))
    return _interval("pair_accuracy", accuracy_P, seed, resamples) | _interval("pair_margin", margin_P, seed, resamples)


def _texts(groups: Sequence[Group]) -> Metrics:
    candidates = [c for g in groups for c in g.candidates]
    return {
        "prompts": float(len(groups)),
        "length_mean": _mean([len(c.token_ids) for c in candidates]),
        "distinct_2": distinct_n([c.token_ids for c in candidates]),
        "truncated_rate": _mean([c.finish_reason == "length" for c in candidates]),
    }


def _rewards(
    name: str, model: str | None, new: Sequence[Group], old: Sequence[Group] | None, seed: int, resamples: int
) -> Metrics:
    """Mean and gain over old, with intervals, and the sd of single candidates. Interval ends are ``{name}_low``."""
    scores_P_K = _scores(new, model)
    mean = _interval(name, prompt_means(scores_P_K), seed, resamples)
    mean[f"{name}_mean"] = mean.pop(name)
    present = scores_P_K[~np.isnan(scores_P_K)]
    mean[f"{name}_sd"] = float(present.std()) if present.size else None
    return mean | _interval(f"{name}_gain", _gain(new, old, model), seed, resamples)


def _gain(new: Sequence[Group], old: Sequence[Group] | None, model: str | None) -> Floats:
    """(P,) difference of mean rewards, for the prompts that both have; NaN where either has no score."""
    new_P_K, old_P_K = _compared(new, old, model)
    return prompt_means(new_P_K) - prompt_means(old_P_K)


def _win_rates(
    new: Sequence[Group], old: Sequence[Group] | None, model: str | None, seed: int, resamples: int
) -> Metrics:
    new_P_K, old_P_K = _compared(new, old, model)
    new_lengths, old_lengths = (_lengths(groups) for groups in _matched(new, old or ()))
    wins = ((np.sign(new_P_K[:, :, None] - old_P_K[:, None, :]) + 1) / 2).ravel()
    gaps = (new_lengths[:, :, None] - old_lengths[:, None, :]).ravel()
    seen = ~np.isnan(wins)
    controlled = length_controlled_win_rate(wins[seen], gaps[seen]) if seen.any() else None
    rate = _interval("win_rate", win_rate(new_P_K, old_P_K), seed, resamples)
    return rate | {"length_controlled_win_rate": controlled}


def _ratios(new: Sequence[Group], old: Sequence[Group] | None) -> Metrics:
    ours, theirs = (_texts(groups) for groups in _matched(new, old or ()))
    return {
        "length_ratio": _ratio(ours["length_mean"], theirs["length_mean"]),
        "distinct_ratio": _ratio(ours["distinct_2"], theirs["distinct_2"]),
    }


def _agreement(groups: Sequence[Group], reward: str | None, gold: str | None) -> Metrics:
    reward_P_K, gold_P_K = _scores(groups, reward), _scores(groups, gold)
    agreement_P = agreement(reward_P_K, gold_P_K)
    return {
        "reward_agreement": _mean(agreement_P[~np.isnan(agreement_P)].tolist()),
        "reward_calibration": calibration_error(reward_P_K, gold_P_K),
    }


def _kl(
    groups: Sequence[Group],
    policy_logprobs: Sequence[SequenceLogprobs] | None,
    initial_logprobs: Sequence[SequenceLogprobs] | None,
    seed: int,
    resamples: int,
) -> Metrics:
    if policy_logprobs is None or initial_logprobs is None:
        return _interval("kl_initial", np.empty(0), seed, resamples)
    policy, initial = _by_prompt(policy_logprobs), _by_prompt(initial_logprobs)
    answered = [g for g in groups if g.candidates]
    policy_P_K, initial_P_K = (_padded([_of_group(logprobs, g) for g in answered]) for logprobs in (policy, initial))
    return _interval("kl_initial", kl_estimate(policy_P_K, initial_P_K), seed, resamples)


def _failure_rate(new: Sequence[Group], old: Sequence[Group], model: str | None) -> float | None:
    """Share of candidates without a score; a prompt that new did not answer, or that only old has, counts as one."""
    scores = [_group_scores(g, model) for g in new] if model else [np.zeros(len(g.candidates)) for g in new]
    missing_prompts = len({_question(g) for g in old} - {_question(g) for g in new})
    failed = missing_prompts + sum(int(np.isnan(s).sum()) if len(s) else 1 for s in scores)
    total = missing_prompts + sum(max(len(s), 1) for s in scores)
    return failed / total if total else None


def _matched(new: Sequence[Group], old: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """Groups of the questions that both have, in new's order."""
    theirs = {_question(g): g for g in old}
    both = [g for g in new if _question(g) in theirs]
    return both, [theirs[_question(g)] for g in both]


def _question(group: Group) -> str:
    """The prompt's id without the goal it may be served under: a conditioned policy is compared with a plain one."""
    return group.prompt.at_goal(None).id


def _compared(new: Sequence[Group], old: Sequence[Group] | None, model: str | None) -> tuple[Floats, Floats]:
    ours, theirs = _matched(new, old or ())
    return _scores(ours, model), _scores(theirs, model)


def _scores(groups: Sequence[Group], model: str | None) -> Floats:
    """(P, K) scores, NaN where missing and, without a model, everywhere."""
    return _padded([_group_scores(g, model) for g in groups])


def _group_scores(group: Group, model: str | None) -> Floats:
    if model is None or not group.candidates:
        return np.full(len(group.candidates), np.nan)
    scores_G = np.array(group.rewards[model], dtype=np.float64)  # None becomes NaN
    return np.where(np.isfinite(scores_G), scores_G, np.nan)


def _lengths(groups: Sequence[Group]) -> Floats:
    return _padded([np.array([len(c.token_ids) for c in g.candidates], dtype=np.float64) for g in groups])


def _padded(rows: Sequence[Floats]) -> Floats:
    """(P, K) with NaN after the end of shorter rows."""
    width = max(map(len, rows), default=0)
    return np.array([np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows]).reshape(
        len(rows), width
    )


def _by_prompt(rows: Sequence[SequenceLogprobs]) -> dict[str, Floats]:
    return {row.prompt_id: np.asarray(row.logprobs, dtype=np.float64) for row in rows}


def _of_group(logprobs: Mapping[str, Floats], group: Group) -> Floats:
    found_G = logprobs.get(group.prompt.id, np.empty(0))
    if len(found_G) != len(group.candidates):
        raise ValueError(
            f"prompt {group.prompt.id}: {len(found_G)} log-probabilities for {len(group.candidates)} candidates"
        )
    return found_G


def _interval(name: str, values_P: Floats, seed: int, resamples: int) -> Metrics:
    """Mean, low and high under ``name``. A generator for each name, so that a new metric moves no old one."""
    present_P = values_P[~np.isnan(values_P)]
    if len(present_P) < 2:
        return {name: _mean(present_P.tolist()), f"{name}_low": None, f"{name}_high": None}
    mean, low, high = paired_bootstrap(present_P, np.random.default_rng(seed_of(seed, name)), resamples)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _ratio(new: float | None, old: float | None) -> float | None:
    return new / old if new is not None and old else None
