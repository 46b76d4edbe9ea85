import math

import numpy as np
import pytest
from scipy.optimize import minimize

from alignment.metrics import (
    PRIOR_PRECISION,
    agreement,
    calibration_error,
    distinct_n,
    hacking_slope,
    kl_estimate,
    length_controlled_win_rate,
    paired_bootstrap,
    prompt_means,
    win_rate,
)

NAN = math.nan


def test_win_rate_counts_all_pairs_and_ties_half():
    """Prompt 1: 2 beats (1, 0), 1 ties 1 and beats 0: 3.5 of 4. Prompt 2: both tie: 1/2."""
    new, old = np.array([[2.0, 1.0], [3.0, 3.0]]), np.array([[1.0, 0.0], [3.0, 3.0]])
    assert win_rate(new, old).tolist() == [0.875, 0.5]
    assert win_rate(old, new).tolist() == [0.125, 0.5]


def test_win_rate_leaves_missing_scores_out_and_allows_different_counts():
    """Prompt 1: only 1 against (0, 2, 1): 1.5 of 3. Prompt 2 has no score of its own, prompt 3 none to meet."""
    new = np.array([[1.0, NAN], [NAN, NAN], [1.0, 1.0]])
    old = np.array([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0], [NAN, NAN, NAN]])
    assert win_rate(new, old) == pytest.approx([0.5, NAN, NAN], nan_ok=True)


def test_prompt_means_weigh_what_is_there():
    assert prompt_means(np.array([[1.0, NAN, 3.0], [NAN] * 3])) == pytest.approx([2, NAN], nan_ok=True)
    assert prompt_means(np.empty((2, 0))) == pytest.approx([NAN, NAN], nan_ok=True)


def test_bootstrap_interval_is_that_of_the_mean():
    """400 normal values: the percentile interval is the mean -+ 1.96 s / 20, to the noise of 4,000 resamples."""
    values = np.random.default_rng(0).normal(2, 3, size=400)
    mean, low, high = paired_bootstrap(values, np.random.default_rng(1), 4000)
    half = 1.96 * values.std() / 20
    assert mean == values.mean()
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)
    narrow = paired_bootstrap(values, np.random.default_rng(1), 4000, level=0.5)
    assert (narrow[2] - narrow[1]) / (high - low) == pytest.approx(0.6745 / 1.96, rel=0.1)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    """300 samples of 80 prompts, win rates 0, 1/2 or 1 with mean 0.6: 95% intervals cover it 285 times, sd 3.8.
    The fixed seed is one draw; below 92% or above 98.5% would be five sd away."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        values = rng.choice([0.0, 0.5, 1.0], p=[0.3, 0.2, 0.5], size=80)
        _, low, high = paired_bootstrap(values, rng, 400)
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 300 <= 0.985


def test_bootstrap_repeats_with_its_generator_and_refuses_what_has_no_interval():
    values = np.array([0.0, 1.0, 1.0])
    draws = [paired_bootstrap(values, np.random.default_rng(5), 100) for _ in range(2)]
    assert draws[0] == draws[1]
    assert paired_bootstrap(np.ones(3), np.random.default_rng(5), 100) == (1, 1, 1)
    for bad in ([1.0], [], [1.0, NAN]):
        with pytest.raises(ValueError, match="at least 2 values"):
            paired_bootstrap(np.array(bad), np.random.default_rng(0), 10)


def test_length_control_recovers_the_rate_at_equal_length():
    """Wins drawn with log-odds 0.4 + 1.5 * (gap / sd), gaps 60 tokens longer on average: the plain rate is far above
    sigma(0.4) = 0.599, the controlled one is it (n = 20,000, se 0.004)."""
    rng = np.random.default_rng(3)
    gaps = rng.normal(60, 40, size=20_000)
    wins = (rng.random(20_000) < 1 / (1 + np.exp(-0.4 - 1.5 * gaps / gaps.std()))).astype(float)
    assert wins.mean() > 0.85
    assert length_controlled_win_rate(wins, gaps) == pytest.approx(1 / (1 + math.exp(-0.4)), abs=0.02)


def test_length_control_is_the_maximum_of_its_penalised_likelihood():
    rng = np.random.default_rng(4)
    wins, gaps = rng.choice([0.0, 0.5, 1.0], size=60), rng.normal(5, 20, size=60)
    x = np.stack([np.ones(60), gaps / gaps.std()], axis=1)

    def negative(w: np.ndarray) -> float:
        return -(wins @ (x @ w) - np.logaddexp(0, x @ w).sum() - PRIOR_PRECISION / 2 * w @ w)

    best = minimize(negative, np.zeros(2), tol=1e-12).x[0]
    assert length_controlled_win_rate(wins, gaps) == pytest.approx(1 / (1 + math.exp(-best)), abs=1e-5)


def test_length_control_changes_nothing_without_a_spread_of_lengths():
    """Three wins of four, all gaps 7: the plain 0.75, up to the weak prior (0.01 against 0.75 of curvature)."""
    assert length_controlled_win_rate(np.array([1.0, 1.0, 1.0, 0.0]), np.full(4, 7.0)) == pytest.approx(0.75, abs=5e-3)


@pytest.mark.parametrize("wins", [[1.0] * 6, [0.0] * 6, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
def test_length_control_stays_finite_when_all_is_won_or_length_decides(wins):
    """Separable data have no maximum of the likelihood; the prior keeps one. Symmetric gaps then read 1/2."""
    rate = length_controlled_win_rate(np.array(wins), np.array([3.0, 2.0, 1.0, -1.0, -2.0, -3.0]))
    assert {6.0: rate > 0.95, 0.0: rate < 0.05, 3.0: abs(rate - 0.5) < 1e-6}[sum(wins)]


def test_distinct_bigrams_by_hand():
    """(1 2)(2 1)(1 2) and (1 2): four bigrams, two of them distinct. One token has none."""
    assert distinct_n([[1, 2, 1, 2], [1, 2], [9]]) == 0.5
    assert distinct_n([[1, 2, 3], [3, 4]]) == 1
    assert distinct_n([[7, 7, 7]], n=1) == pytest.approx(1 / 3)
    assert distinct_n([[1], []]) is None


def test_kl_estimate_is_the_mean_logratio_of_each_prompt():
    """((-10 + 12) + (-20 + 21)) / 2 = 1.5 nats; one sampled value may be negative."""
    policy, initial = np.array([[-10.0, -20.0], [-5.0, NAN]]), np.array([[-12.0, -21.0], [-4.0, NAN]])
    assert kl_estimate(policy, initial).tolist() == [1.5, -1.0]
    assert kl_estimate(policy[:1], policy[:1]).tolist() == [0]


def test_kl_estimate_is_unbiased_under_the_policys_own_samples():
    """p = (.7, .2, .1) against uniform: KL = sum p log 3p = 0.2968 nats. n = 40,000, sd .55, 4 se = 0.011."""
    p = np.array([0.7, 0.2, 0.1])
    drawn = np.random.default_rng(9).choice(3, size=(1, 40_000), p=p)
    estimate = kl_estimate(np.log(p)[drawn], np.full(drawn.shape, -math.log(3)))[0]
    assert estimate == pytest.approx((p * np.log(3 * p)).sum(), abs=0.011)


def test_agreement_counts_ordered_pairs_within_a_prompt():
    """Gold 0 < 1 < 2. Reward (0, 2, 1): two of three pairs right. Reward (1, 1, 2): one tie: (1/2 + 1 + 1) / 3."""
    gold = np.array([[0.0, 1.0, 2.0]] * 2)
    reward = np.array([[0.0, 2.0, 1.0], [1.0, 1.0, 2.0]])
    assert agreement(reward, gold) == pytest.approx([2 / 3, 5 / 6])
    assert agreement(-gold, gold).tolist() == [0, 0]


def test_agreement_ignores_scale_missing_scores_and_gold_ties():
    """Only (0, 1) is ordered by gold and scored by both; the second prompt has gold ties alone."""
    reward, gold = np.array([[0.1, 90.0, NAN], [1.0, 2.0, 3.0]]), np.array([[0.0, 1.0, 5.0], [4.0, 4.0, 4.0]])
    assert agreement(reward, gold) == pytest.approx([1.0, NAN], nan_ok=True)


def test_calibration_error_by_hand():
    """Two pairs with reward gap log 3, so sigma = 3/4; gold agrees with one: |1/2 - 3/4| = 1/4. Agreeing with both
    is 1/4 the other way. A pair that either ties is not counted."""
    reward = np.array([[math.log(3), 0.0], [0.0, math.log(3)], [1.0, 1.0]])
    assert calibration_error(reward, np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])) == pytest.approx(0.25)
    assert calibration_error(reward, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])) == pytest.approx(0.25)
    assert calibration_error(np.array([[1.0, NAN]]), np.array([[1.0, 2.0]])) is None


def test_a_reward_that_made_the_labels_is_calibrated_and_ten_times_it_is_not():
    """20,000 pairs labelled with probability sigma(gap): error near 0 (noise 0.01); rewards times 10 claim
    near-certainty and are right as often as before."""
    rng = np.random.default_rng(12)
    reward = np.stack([rng.normal(size=20_000), np.zeros(20_000)], axis=1)
    gold = np.stack(
        [(rng.random(20_000) < 1 / (1 + np.exp(-reward[:, 0]))).astype(float), np.full(20_000, 0.5)], axis=1
    )
    honest, loud = calibration_error(reward, gold), calibration_error(reward * 10, gold)
    assert (honest is None, loud is None) == (False, False)
    assert honest < 0.02 < 0.2 < loud


def test_hacking_slope_by_hand():
    """Proxy rises 1 sd a round (2 of sd 2) and gold 0.5 (0.5 of sd 1): the slope is 0.5. Equal gains give 0."""
    slope = hacking_slope([0.0, 2.0, 4.0], [1.0, 1.5, 2.0], proxy_sd=2.0, gold_sd=1.0)
    assert slope == pytest.approx(0.5)
    assert hacking_slope([5.0, 6.0], [0.0, 3.0], proxy_sd=1, gold_sd=3) == pytest.approx(0)
    assert hacking_slope([0.0, 0.0], [0.0, -1.0], proxy_sd=1, gold_sd=1) == pytest.approx(1)
    assert hacking_slope([0.0], [0.0], proxy_sd=1, gold_sd=1) is None
    assert hacking_slope([0.0, 1.0], [0.0, 1.0], proxy_sd=0, gold_sd=1) is None
