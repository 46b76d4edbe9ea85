"""RSO's Gumbel option and its correction for rounds after the first, against exact laws.

Seeds are fixed; a chi-square check passes at p >= 1e-3, so a correct sampler fails one check in a thousand under
another seed.
"""

import math

import numpy as np
import pytest
from made_groups import evidence, group, select
from test_rso_exact import (
    BETA,
    PRIOR,
    REWARDS,
    SEVEN,
    count_first,
    first_accepted_law,
    p_value,
    target,
    total_variation,
)

from alignment.errors import UserError
from alignment.selection import RSO


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def test_gumbel_draws_one_from_the_softmax_and_not_by_the_sweeps_law():
    """n = 60,000, 6 df."""
    rso = RSO(beta=BETA, num_accepted=1, method="gumbel")
    counts = count_first(rso.accept, SEVEN, n=60_000, seed=31)
    assert p_value(counts, softmax(SEVEN / BETA)) > 1e-3
    assert p_value(counts, first_accepted_law(SEVEN, BETA)) < 1e-6


def test_gumbel_draws_two_without_replacement_by_plackett_and_luce():
    """P(i, then j) = s_i s_j / (1 - s_i). n = 60,000 over the 42 orders of 2 of 7."""
    rso, rng = RSO(beta=BETA, num_accepted=2, method="gumbel"), np.random.default_rng(32)
    drawn = [rso.accept(SEVEN, rng) for _ in range(60_000)]
    counts = np.bincount([7 * i + j for i, j in drawn], minlength=49)
    s = softmax(SEVEN / BETA)
    law = (s[:, None] * s[None, :] / (1 - s[:, None]) * (1 - np.eye(7))).ravel()
    assert counts[law == 0].sum() == 0
    assert p_value(counts[law > 0], law[law > 0]) > 1e-3


def test_gumbel_always_takes_as_many_as_asked_for_or_all_there_are():
    rso = RSO(beta=0.3, num_accepted=8, method="gumbel")
    for seed in range(50):
        accepted = rso.accept(np.random.default_rng(seed).normal(size=64), np.random.default_rng(seed))
        assert len(set(accepted)) == len(accepted) == 8
    assert sorted(rso.accept([1.0, None, math.nan, 0.0], np.random.default_rng(0))) == [0, 3]
    assert rso.accept([None], np.random.default_rng(0)) == []


def test_gumbel_at_beta_zero_is_the_top_k_and_ties_fall_to_a_coin():
    """Top 4 best first; of two equal bests either comes first, about half the time (400 seeds, 4 sd = 40)."""
    for beta in (0.0, 1e-300):
        rso = RSO(beta=beta, num_accepted=4, method="gumbel")
        assert rso.accept(SEVEN, np.random.default_rng(0)) == [3, 6, 0, 4]
    first = [RSO(beta=0, num_accepted=1, method="gumbel").accept([1.0, 0.0, 1.0], np.random.default_rng(s))[0]
             for s in range(400)]  # fmt: skip
    assert set(first) == {0, 2}
    assert abs(first.count(0) - 200) < 40


def test_eight_of_256_follow_the_target_with_multiplicity():
    """Flat prior over 12 completions, beta = 0.5: 10,000 lists, 80,000 accepted, so a distance of about 0.003 is
    noise. Keyed by text, at most 12 distinct ones exist and 8 of them are nearly all."""
    rng, law = np.random.default_rng(33), softmax(REWARDS / 0.5)
    states_N_G = rng.integers(12, size=(10_000, 256))
    rso = RSO(beta=0.5, num_accepted=8)
    accepted = [s for states_G in states_N_G for s in states_G[rso.accept(REWARDS[states_G], rng)]]
    assert total_variation(np.bincount(accepted, minlength=12), law) < 0.01


def corrected_counts(log_ratios: np.ndarray, proposal: np.ndarray, n: int) -> np.ndarray:
    rng, rso = np.random.default_rng(34), RSO(beta=0.5, num_accepted=1)
    states_N_G = rng.choice(12, size=(n, 64), p=proposal)
    accepted = [s[rso.accept(REWARDS[s], rng, log_ratios_G=log_ratios[s])[0]] for s in states_N_G]
    return np.bincount(accepted, minlength=12)


def test_a_later_round_with_the_correction_keeps_the_first_target():
    """The second round proposes from pi_1 = pi_0 exp(r) / Z. Accepting on r / beta + log pi_0 - log pi_1 gives
    pi_0 exp(r / beta); without the correction the tilts multiply to pi_0 exp(r + r / beta). n = 20,000 lists."""
    proposal = softmax(np.log(PRIOR) + REWARDS)
    corrected = corrected_counts(np.log(PRIOR) - np.log(proposal), proposal, n=20_000)
    plain = corrected_counts(np.zeros(12), proposal, n=20_000)
    compounded = softmax(np.log(PRIOR) + REWARDS + REWARDS / 0.5)
    assert total_variation(corrected, target(0.5)) < 0.02
    assert total_variation(plain, target(0.5)) > 0.1
    assert total_variation(plain, compounded) < 0.02


def test_the_correction_accepts_more_than_proposing_from_the_initial_policy_would():
    """Exact rates E[exp(s - s_max)]: a proposal that is tilted already is accepted more often."""
    proposal = softmax(np.log(PRIOR) + REWARDS)
    scores = REWARDS / 0.5 + np.log(PRIOR) - np.log(proposal)
    from_initial = PRIOR @ np.exp((REWARDS - REWARDS.max()) / 0.5)
    assert proposal @ np.exp(scores - scores.max()) > 1.5 * from_initial


def test_at_infinite_beta_the_correction_alone_decides():
    """exp(r / inf) = 1: what is left is pi_0 / pi_t, here 1 : e^-30 at equal rewards, so the first comes first."""
    rso = RSO(beta=math.inf, num_accepted=1)
    drawn = {rso.accept([0.0, 5.0], np.random.default_rng(s), log_ratios_G=[0.0, -30.0])[0] for s in range(20)}
    assert drawn == {0}


def test_clipped_log_ratios_are_counted():
    """Of four log-ratios 0, -25, 3, 30 two exceed 20 in size; their spread is told as it was
    before clipping."""
    g = group([1.0, 0.5, 0.0, -0.5])
    known = evidence([g], {"initial": [[-10.0, -35.0, -7.0, 20.0]], "current": [[-10.0] * 4]})
    metrics = select(RSO(num_accepted=2, target="initial"), g, evidence=known).metrics
    assert metrics["log_ratio_clipped"] == 0.5
    assert metrics["log_ratio_sd"] == pytest.approx(np.std([0.0, -25.0, 3.0, 30.0]))


def test_acceptance_sees_the_clipped_log_ratio():
    """beta = 1, rewards 0, 100, 200, 300, log-ratios 1000, 0, 0, 0 clipped to 1: scores 1, 100, 200, 300, so that 3 and
    2 are accepted whatever is drawn. As it stood, 1000 nats would bring in candidate 0."""
    g = group([0.0, 100.0, 200.0, 300.0])
    known = evidence([g], {"initial": [[1000.0, 0.0, 0.0, 0.0]], "current": [[0.0] * 4]})
    clipped = select(RSO(beta=1, num_accepted=2, target="initial", max_log_ratio=1), g, evidence=known)
    assert [(p.chosen, p.rejected) for p in clipped.pairs] == [(3, 2)]


def test_every_sweep_accepts_the_best_that_is_left_so_there_are_at_most_as_many_as_are_wanted():
    """Rewards 1 and 0 at beta = 1: the second passes the first sweep with e^-1, or else the next for certain. With the
    first maximum kept it would have to be lucky again."""
    rso = RSO(beta=1, num_accepted=2)
    sweeps = [rso._sweeps(*rso._scores(np.array([1.0, 0.0]), None), np.random.default_rng(s)) for s in range(200)]
    assert {tuple(map(len, of_seed)) for of_seed in sweeps} == {(2,), (1, 1)}


def test_the_first_round_needs_no_correction():
    """Current and initial policy are one: every log-ratio is 0, and the pairs are those of plain acceptance."""
    g = group(np.random.default_rng(0).normal(size=16).tolist())
    same = [[-3.0 - i for i in range(16)]]
    known = evidence([g], {"initial": same, "current": same})
    corrected = select(RSO(num_accepted=4, target="initial"), g, evidence=known)
    assert corrected.pairs == select(RSO(num_accepted=4), g).pairs


def test_a_log_ratio_that_is_not_finite_leaves_its_candidate_out():
    g = group([9.0, 1.0, 0.0])
    known = evidence([g], {"initial": [[math.nan, -1.0, -1.0]], "current": [[-1.0, -1.0, -1.0]]})
    selection = select(RSO(num_accepted=3, beta=math.inf, target="initial"), g, evidence=known)
    assert [(p.chosen, p.rejected) for p in selection.pairs] == [(1, 2)]


def test_the_correction_without_log_probabilities_says_which_step_is_missing():
    with pytest.raises(UserError, match="log-probabilities under the initial policy are needed, and there are none"):
        select(RSO(num_accepted=2, target="initial"), group([1.0, 2.0, 3.0]))


def test_refined_drafts_are_no_draws_from_the_policy():
    g = group([1.0, 2.0, 3.0])
    refined = g.candidates[2].model_copy(update={"parent": 0})
    g = g.model_copy(update={"candidates": (*g.candidates[:2], refined)})
    known = evidence([g], {"initial": [[-1.0] * 3], "current": [[-1.0] * 3]})
    with pytest.raises(UserError, match="refine a draft"):
        select(RSO(num_accepted=2, target="initial"), g, evidence=known)


def test_the_quota_holds_within_a_sweep():
    """64 equal rewards pass in one sweep; a quota that is only looked at after the sweep would give all 64."""
    assert len(RSO(num_accepted=3).accept(np.ones(64), np.random.default_rng(0))) == 3


def test_a_starved_prompt_is_counted():
    """beta = 0.1, rewards 0..7: weights sum to 1 + e^-10 + ..., far under the 4 that are wanted; equal rewards sum
    to 8. One of two prompts is starved, and beta is 0.1 / sd of 0..7 there (no sd at equal rewards)."""
    spread, equal = group([float(i) for i in range(8)]), group([1.0] * 8, name="q")
    metrics = select(RSO(beta=0.1, num_accepted=4), spread, equal).metrics
    assert metrics["starved"] == 0.5
    assert metrics["beta_rel"] == pytest.approx(0.1 / np.std(range(8)))


@pytest.mark.parametrize("beta", [0.5, math.inf])
def test_equal_rewards_leave_the_correction_alone_to_decide_in_units_of_their_spread_too(beta):
    """No spread to measure beta in: whatever beta is, what is left is pi_0 / pi_t, here 1 : e^-30."""
    rso = RSO(beta=beta, beta_unit="prompt_sd", num_accepted=1)
    drawn = {rso.accept([2.0, 2.0], np.random.default_rng(s), log_ratios_G=[-30.0, 0.0])[0] for s in range(20)}
    assert drawn == {1}


def test_a_zero_with_a_sign_is_a_zero():
    """(r_max - r) / -0.0 is minus infinity, which every draw exceeds: the top k would become any k."""
    for method in ("sweeps", "gumbel"):
        accepted = RSO(beta=-0.0, num_accepted=4, method=method).accept(SEVEN, np.random.default_rng(0))
        assert accepted == [3, 6, 0, 4]
