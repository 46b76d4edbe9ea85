"""What a policy's answers to the held-out prompts say about it, with intervals over prompts.

Arrays are (P, K): P prompts, K candidates each, NaN where a score is missing. ``evaluation`` puts them together.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float, float]
"""Mean, low, high."""

PRIOR_PRECISION = 0.01
"""Of both coefficients of ``length_controlled_win_rate``: sd 10 on the log-odds scale, so that they stay finite."""


def win_rate(new_P_K: Floats, old_P_K: Floats) -> Floats:
    """(P,) share of the prompt's (new, old) candidate pairs that new wins, ties counting half.

    NaN for a prompt with no pair of scores. The two may have different K; identical rewards give 1/2.
    """
    return prompt_means((np.sign(new_P_K[:, :, None] - old_P_K[:, None, :]) + 1) / 2)


def prompt_means(values: Floats) -> Floats:
    """(P,) mean over all axes but the first of what is not NaN; NaN for a prompt that has nothing."""
    present, rest = ~np.isnan(values), tuple(range(1, values.ndim))
    counts_P = present.sum(axis=rest)
    sums_P = np.where(present, values, 0.0).sum(axis=rest)
    return np.where(counts_P > 0, sums_P / np.maximum(counts_P, 1), np.nan)


def paired_bootstrap(values_P: Floats, rng: np.random.Generator, resamples: int, level: float = 0.95) -> Interval:
    """Mean over prompts with a percentile interval, prompts resampled whole (Efron and Tibshirani 1993, ch. 13).

    Paired when each value already compares two policies on one prompt. The interval is too narrow for a handful
    of prompts (equal values give no width at all), and ValueError for fewer than two or for NaN.
    """
    if len(values_P) < 2 or np.isnan(values_P).any():
        raise ValueError(f"an interval over prompts needs at least 2 values and no NaN, not {values_P!r}")
    means = [values_P[rng.integers(len(values_P), size=len(values_P))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values_P.mean()), float(low), float(high)


def length_controlled_win_rate(wins_N: Floats, length_gap_N: Floats) -> float:
    """Win rate as it would be between completions of equal length.

    Ours, in the spirit of length-controlled AlpacaEval (arXiv:2404.04475) without its per-prompt term: a logistic
    regression of the win (0, 1/2 or 1) on the length difference in units of its sd, read at difference zero. With
    no spread of lengths it is the plain win rate; with wins and losses split cleanly by length the prior decides.
    """
    spread = length_gap_N.std()
    x_N_2 = np.stack([np.ones_like(wins_N), length_gap_N / spread if spread > 0 else np.zeros_like(wins_N)], axis=1)

    def objective(w: Floats) -> float:
        z_N = x_N_2 @ w
        return float(wins_N @ z_N - np.logaddexp(0, z_N).sum() - PRIOR_PRECISION / 2 * w @ w)

    w = np.zeros(2)
    for _ in range(100):
        p_N = _sigmoid(x_N_2 @ w)
        gradient = x_N_2.T @ (wins_N - p_N) - PRIOR_PRECISION * w
        curvature = (x_N_2.T * (p_N * (1 - p_N))) @ x_N_2 + PRIOR_PRECISION * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        if np.abs(step).max() < 1e-9:
            break
        while objective(w + step) < objective(w) and np.abs(step).max() > 1e-9:
            step = step / 2
        w = w + step
    return float(_sigmoid(w[0]))


def distinct_n(token_ids: Sequence[Sequence[int]], n: int = 2) -> float | None:
    """Distinct n-grams over all n-grams of all completions together; None where there is none.

    After Li et al. 2016, arXiv:1510.03055, who divide by tokens. It falls as text is added, so compare policies
    over the same prompts with the same number of candidates. 1 when nothing repeats.
    """
    grams = Counter(tuple(ids[i : i + n]) for ids in token_ids for i in range(len(ids) - n + 1))
    return len(grams) / grams.total() if grams else None


def kl_estimate(logprob_policy_P_K: Floats, logprob_initial_P_K: Floats) -> Floats:
    """(P,) mean log pi(y|x) - log pi_0(y|x) over the prompt's candidates, in nats per completion.

    Unbiased for KL(pi || pi_0) where y was drawn from pi itself (temperature 1, nothing cut from the distribution);
    a single prompt's value may be negative. Zero for the same model.
    """
    return prompt_means(logprob_policy_P_K - logprob_initial_P_K)


def agreement(reward_P_K: Floats, gold_P_K: Floats) -> Floats:
    """(P,) share of a prompt's candidate pairs that reward orders as gold does; a tie in reward counts half.

    Pairs that gold ties are left out; NaN for a prompt with no other. 1/2 is chance.
    """
    order_P_K_K = np.sign(gold_P_K[:, :, None] - gold_P_K[:, None, :])
    guess_P_K_K = np.sign(reward_P_K[:, :, None] - reward_P_K[:, None, :])
    return prompt_means(np.where(order_P_K_K == 0, np.nan, (1 + order_P_K_K * guess_P_K_K) / 2))


def calibration_error(reward_P_K: Floats, gold_P_K: Floats, bins: int = 10) -> float | None:
    """How far sigma(difference of rewards), as a probability that gold agrees, is from how often gold does agree.

    Expected calibration error (Guo et al. 2017, arXiv:1706.04599) over ``bins`` equal bins of [1/2, 1], on
    candidate pairs of one prompt that neither ties. Small samples bias it upward. None without such a pair.
    """
    first, second = np.triu_indices(reward_P_K.shape[1], k=1)
    reward_gap = (reward_P_K[:, first] - reward_P_K[:, second]).ravel()
    gold_gap = (gold_P_K[:, first] - gold_P_K[:, second]).ravel()
    ordered = np.abs(reward_gap * gold_gap) > 0  # neither a tie nor NaN
    if not ordered.any():
        return None
    claimed = _sigmoid(np.abs(reward_gap[ordered]))
    right = (np.sign(reward_gap) == np.sign(gold_gap))[ordered]
    bin_of = np.minimum(((claimed - 0.5) * 2 * bins).astype(int), bins - 1)
    excess = np.bincount(bin_of, weights=right - claimed, minlength=bins)  # bin size times its mean error
    return float(np.abs(excess).sum() / len(claimed))


def hacking_slope(
    proxy_by_round: Sequence[float], gold_by_round: Sequence[float], *, proxy_sd: float, gold_sd: float
) -> float | None:
    """Least-squares slope over rounds of proxy minus gold, each in units of its sd under the initial policy.

    Means of equally spaced rounds, the initial policy first. Positive when the reward outruns gold: over-optimisation.
    None with fewer than two rounds or when either has no spread.
    """
    if len(proxy_by_round) < 2 or not (proxy_sd > 0 and gold_sd > 0):
        return None
    rounds = np.arange(len(proxy_by_round)) - (len(proxy_by_round) - 1) / 2
    excess = np.asarray(proxy_by_round) / proxy_sd - np.asarray(gold_by_round) / gold_sd
    return float(rounds @ excess / (rounds @ rounds))


def _sigmoid(z: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -z))
