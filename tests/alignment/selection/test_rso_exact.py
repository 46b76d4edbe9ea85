"""RSO's sampler against laws that are known exactly, and the same checks against samplers that are wrong.

All seeds are fixed. A chi-square check passes at p >= 1e-3, so a correct sampler has one chance in a thousand per
check of failing under another seed; the wrong samplers below fail with p < 1e-6 at a tenth of the sample.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2

from alignment.selection import RSO, acceptance_gap

Accept = Callable[[np.ndarray, np.random.Generator], list[int]]

BETA = 0.6
SEVEN = np.array([0.9, 0.1, -0.4, 1.3, 0.7, -1.2, 1.1])
"""Rewards of one candidate list."""

REWARDS = np.array([0.0, 0.3, -0.7, 1.0, 0.55, -0.2, 0.8, -1.1, 0.15, 0.95, -0.45, 0.4])
PRIOR = np.array([0.16, 0.11, 0.10, 0.04, 0.07, 0.10, 0.05, 0.13, 0.08, 0.03, 0.09, 0.04])
"""A space of 12 completions in which the better ones are rarer: what pi_sft gives each."""


def target(beta: float) -> np.ndarray:
    """pi_r = pi_sft exp(r / beta) / Z, the optimum of reward minus beta KL."""
    weights = PRIOR * np.exp(REWARDS / beta)
    return weights / weights.sum()


def first_accepted_law(rewards_G: np.ndarray, beta: float) -> np.ndarray:
    """P(i) = w_i integral_0^1 prod_{j != i} (1 - u w_j) du, exact by Gauss-Legendre with ceil(G / 2) nodes.

    In a sweep in random order i is the first accepted if it passes and comes before all others that pass: given that
    S others pass, E[1 / (1 + S)] = integral E[u^S] du, with u replaced by 1 - u.
    """
    w = np.exp((rewards_G - rewards_G.max()) / beta)
    x, weight = np.polynomial.legendre.leggauss(math.ceil(len(w) / 2))
    u = (x + 1) / 2
    others = np.array([np.prod(1 - u[:, None] * np.delete(w, i), axis=1) for i in range(len(w))])
    return w * (others @ weight) / 2


def p_value(counts: np.ndarray, law: np.ndarray) -> float:
    """Of Pearson's X^2, cells that expect under 5 pooled."""
    expected = counts.sum() * law
    small = expected < 5
    if small.any():
        counts = np.append(counts[~small], counts[small].sum())
        expected = np.append(expected[~small], expected[small].sum())
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1))


def total_variation(counts: np.ndarray, law: np.ndarray) -> float:
    return float(np.abs(counts / counts.sum() - law).sum() / 2)


def count_first(accept: Accept, rewards_G: np.ndarray, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.bincount([accept(rewards_G, rng)[0] for _ in range(n)], minlength=len(rewards_G))


def count_states(accept: Accept, candidates: int, n: int, seed: int) -> np.ndarray:
    """How often each of the 12 completions is accepted, over n lists of candidates drawn from the prior."""
    rng = np.random.default_rng(seed)
    states_N_G = rng.choice(len(PRIOR), size=(n, candidates), p=PRIOR)
    accepted = [states_G[i] for states_G in states_N_G for i in accept(REWARDS[states_G], rng)]
    return np.bincount(accepted, minlength=len(PRIOR))


def test_unlimited_proposals_accepted_against_the_true_maximum_follow_the_target():
    """n = 100,000 accepted, beta = 0.5. X^2 on 11 df (power .99 against TV 0.012 at this n); McDiarmid's bound on TV,
    false alarm 1e-4; the acceptance rate within 4 standard errors of a = sum pi exp((r - r_max) / beta)."""
    beta, n = 0.5, 100_000
    rng = np.random.default_rng(11)
    law, rate = target(beta), float(PRIOR @ np.exp((REWARDS - REWARDS.max()) / beta))
    proposed = rng.choice(12, size=int(1.1 * n / rate), p=PRIOR)
    passed = rng.exponential(size=proposed.size) > acceptance_gap(REWARDS, beta)[proposed]
    counts = np.bincount(proposed[passed][:n], minlength=12)

    assert counts.sum() == n
    assert p_value(counts, law) > 1e-3
    expected_tv = 0.5 * np.sqrt(2 * law * (1 - law) / (math.pi * n)).sum()
    assert total_variation(counts, law) < expected_tv + math.sqrt(math.log(1e4) / (2 * n))
    assert abs(passed.mean() - rate) < 4 * math.sqrt(rate * (1 - rate) / proposed.size)


def test_the_law_of_two_candidates_by_hand():
    """w = (1, w): the second is first accepted if it passes and the coin of order falls for it: w / 2. With
    beta = 1 and a gap of log 2, w = 1/2 and the law is (3/4, 1/4); softmax would say (2/3, 1/3)."""
    assert first_accepted_law(np.array([math.log(2), 0.0]), 1.0) == pytest.approx([0.75, 0.25], rel=1e-14)


def test_one_accepted_of_a_fixed_list_follows_the_integral_and_not_softmax():
    """n = 400,000, X^2 on 6 df."""
    law = first_accepted_law(SEVEN, BETA)
    assert law.sum() == pytest.approx(1, abs=1e-12)
    counts = count_first(RSO(beta=BETA, num_accepted=1).accept, SEVEN, n=400_000, seed=1)
    assert p_value(counts, law) > 1e-3
    softmax = np.exp(SEVEN / BETA) / np.exp(SEVEN / BETA).sum()
    assert p_value(counts, softmax) < 1e-12


def test_a_shift_of_all_rewards_and_a_common_scale_with_beta_change_nothing():
    """Only (r - r_max) / beta matters, so the same draws are accepted. Powers of two keep the arithmetic exact."""
    plain = RSO(beta=0.5, num_accepted=4)
    for shifted, beta in ((SEVEN * 4, 2.0), (SEVEN / 8, 0.0625)):
        scaled = RSO(beta=beta, num_accepted=4)
        for seed in range(50):
            draw = scaled.accept(shifted, np.random.default_rng(seed))
            assert draw == plain.accept(SEVEN, np.random.default_rng(seed))


def test_more_candidates_bring_one_accepted_to_the_target():
    """beta = 0.5, so a = 0.224: TV is large at N a = 0.4 and near the noise of n = 40,000 (0.006) once N a >= 10."""
    tv = {}
    for candidates in (2, 8, 64):
        counts = count_states(RSO(beta=0.5, num_accepted=1).accept, candidates, n=40_000, seed=candidates)
        tv[candidates] = total_variation(counts, target(0.5))
    assert tv[2] > 0.15
    assert tv[2] > 2 * tv[8] > 4 * tv[64]
    assert tv[64] < 0.02


def test_eight_of_many_candidates_follow_the_target_with_multiplicity():
    """N = 512, k = 8, 20,000 lists: 160,000 accepted. Completions that were drawn often are accepted often."""
    counts = count_states(RSO(beta=0.5, num_accepted=8).accept, candidates=512, n=20_000, seed=5)
    assert counts.sum() == 160_000
    assert total_variation(counts, target(0.5)) < 0.01


def test_beta_zero_is_the_top_k_best_first():
    for beta in (0.0, 1e-300):
        accepted = RSO(beta=beta, num_accepted=4).accept(SEVEN, np.random.default_rng(0))
        assert accepted == [3, 6, 0, 4]


def test_beta_zero_breaks_ties_at_random():
    """Two of three equal bests, in order: six outcomes of 1/6 each. n = 12,000, 5 df."""
    rng, rso = np.random.default_rng(2), RSO(beta=0, num_accepted=2)
    orders = [(0, 2), (0, 3), (2, 0), (2, 3), (3, 0), (3, 2)]
    drawn = [tuple(rso.accept([1.0, 0.5, 1.0, 1.0], rng)) for _ in range(12_000)]
    assert set(drawn) == set(orders)
    assert p_value(np.array([drawn.count(o) for o in orders]), np.full(6, 1 / 6)) > 1e-3


@pytest.mark.parametrize(("beta", "rewards_G"), [(math.inf, [3.0, -1.0, 0.0, 900.0, 0.5]), (0.5, [1.0] * 5)])
def test_infinite_beta_or_equal_rewards_accept_uniformly_without_replacement(beta, rewards_G):
    """Two of five, in order: 20 outcomes of 1/20 each. n = 20,000, 19 df."""
    rng, rso = np.random.default_rng(3), RSO(beta=beta, num_accepted=2)
    drawn = [rso.accept(rewards_G, rng) for _ in range(20_000)]
    counts = np.bincount([5 * i + j for i, j in drawn], minlength=25)
    assert counts[[0, 6, 12, 18, 24]].sum() == 0
    assert p_value(counts[counts > 0], np.full(20, 1 / 20)) > 1e-3


@pytest.mark.parametrize(
    ("beta", "mean", "sd"),
    [(0.0, 1.61, 0.39), (0.1, 1.60, 0.40), (0.25, 1.53, 0.48), (0.5, 1.33, 0.65), (1.0, 0.93, 0.85), (2.0, 0.50, 0.91),
     (5.0, 0.20, 0.89)],
)  # fmt: skip
def test_eight_of_sixty_four_at_the_papers_setting_are_nearer_to_the_top_than_to_the_target(beta, mean, sd):
    """Rewards N(0, 1): the ideal tilt has mean 1 / beta, which 8 of 64 cannot reach below beta = 1. The means and
    sds are from a separate vectorised simulation of 4,000 prompts; here 2,000, noise of the mean about 0.01."""
    rng, rso = np.random.default_rng(6), RSO(beta=beta, num_accepted=8)
    accepted = np.array([r[rso.accept(r, rng)] for r in rng.normal(size=(2_000, 64))])
    assert accepted.mean() == pytest.approx(mean, abs=0.03)
    assert accepted.std(axis=1).mean() == pytest.approx(sd, abs=0.03)


# The same checks must catch samplers that are wrong. One plain sampler with one thing changed at a time.


def plain_sampler(
    beta: float,
    num_accepted: int,
    *,
    probability: Callable[[float, float, float], float] = lambda r, top, beta: math.exp((r - top) / beta),
    ceiling: float = math.inf,
) -> Accept:
    """Sweeps in random order, written as a loop: u < probability(r, r_max over the waiting, beta)."""

    def accept(rewards_G: np.ndarray, rng: np.random.Generator) -> list[int]:
        waiting, accepted = list(range(len(rewards_G))), list[int]()
        while waiting and len(accepted) < num_accepted:
            top = min(max(rewards_G[i] for i in waiting), ceiling)
            for i in rng.permutation(waiting).tolist():
                if rng.random() < probability(float(rewards_G[i]), float(top), beta):
                    accepted.append(i)
                    if len(accepted) == num_accepted:
                        break
            waiting = [i for i in waiting if i not in accepted]
        return accepted

    return accept


def keyed_by_text(accept: Accept) -> Accept:
    """The published listing's dict: candidates of the same text become one (here rewards tell texts apart)."""

    def deduplicated(rewards_G: np.ndarray, rng: np.random.Generator) -> list[int]:
        first = np.unique(rewards_G, return_index=True)[1]
        return [int(first[i]) for i in accept(rewards_G[first], rng)]

    return deduplicated


def test_the_plain_sampler_passes_so_that_its_faults_are_what_fails():
    """n = 12,000."""
    counts = count_first(plain_sampler(BETA, 1), SEVEN, n=12_000, seed=21)
    assert p_value(counts, first_accepted_law(SEVEN, BETA)) > 1e-3


def test_control_a_flipped_sign_of_beta_is_caught():
    flipped = plain_sampler(BETA, 1, probability=lambda r, top, beta: math.exp((r - top) / -beta))
    assert p_value(count_first(flipped, SEVEN, n=3_000, seed=22), first_accepted_law(SEVEN, BETA)) < 1e-6


def test_control_a_maximum_below_the_true_one_is_caught():
    """Rewards above the assumed maximum of 0.7 are all accepted with probability 1: the tail is cut flat."""
    clipped = plain_sampler(BETA, 1, ceiling=0.7)
    assert p_value(count_first(clipped, SEVEN, n=12_000, seed=23), first_accepted_law(SEVEN, BETA)) < 1e-6


@pytest.mark.parametrize(("num_accepted", "beta", "at_least"), [(1, 0.5, 0.2), (8, 0.25, 0.35)])
def test_control_candidates_keyed_by_text_are_caught(num_accepted, beta, at_least):
    """Multiplicities are the prior: without them 64 candidates give exp(r / beta) over the support (k = 1), or most
    of the support (8 of 12 texts). The sampler itself is then within 0.1 of the target. n = 3,000 lists."""
    rso = RSO(beta=beta, num_accepted=num_accepted).accept
    assert total_variation(count_states(rso, 64, n=3_000, seed=24), target(beta)) < 0.1
    assert total_variation(count_states(keyed_by_text(rso), 64, n=3_000, seed=24), target(beta)) > at_least


def test_control_a_missing_reward_is_accepted_by_the_listing_and_never_here():
    """``if u >= exp(...): continue`` lets NaN through, for every comparison with NaN is false."""
    rewards_G = np.array([0.2, math.nan, 1.0, -0.3])

    def listing(rewards_G: np.ndarray, rng: np.random.Generator) -> list[int]:
        top = np.nanmax(rewards_G)
        return [i for i, r in enumerate(rewards_G) if not rng.random() >= np.exp((r - top) / BETA)]

    rng, rso = np.random.default_rng(25), RSO(beta=BETA, num_accepted=4)
    assert all(1 in listing(rewards_G, rng) for _ in range(200))
    assert all(sorted(rso.accept(rewards_G, rng)) == [0, 2, 3] for _ in range(200))
