import math

import numpy as np

from alignment.testbed.rso import ACCEPTED, TRAIN, compare, draw_candidates, fit_reward, make_world


def test_the_reward_model_orders_responses_as_gold_does_and_is_not_gold():
    """Seed 0: rank agreement well above chance and below 1 on prompts whose labels it never saw."""
    rng = np.random.default_rng(0)
    world = make_world(rng, curvature=0.35)
    reward = fit_reward(world, compare(world, rng))
    correlations = [np.corrcoef(reward[p], world.gold[p])[0, 1] for p in range(TRAIN, TRAIN + 50)]
    assert 0.9 < np.mean(correlations) < 0.999


def test_blind_acceptance_keeps_nothing_of_the_rewards():
    """The mean reward of 150 * 8 blindly accepted candidates against that of all, seed 0. Rewards have sd 1 within a
    prompt here, so the standard error is 1 / sqrt(1200) = 0.03: 0.12 has a false alarm below 1e-4, while acceptance
    by the right rewards is above 1."""
    rng = np.random.default_rng(0)
    world = make_world(rng, curvature=0.0)
    scaled = world.gold / world.gold.std(-1, keepdims=True)
    drawn = draw_candidates(world, scaled, rng)
    everything = np.mean([g.rewards["rm"] for g in drawn.groups])

    def accepted(pairs: object) -> float:
        both = [(p.prompt_id, i) for p in pairs for i in (p.chosen, p.rejected)]  # type: ignore[attr-defined]
        return float(np.mean([drawn.groups[int(p)].rewards["rm"][i] for p, i in both]))

    assert abs(accepted(drawn.accepted_blindly(0.5, rng).pairs) - everything) < 0.12
    assert accepted(drawn.accepted(0.5, rng).pairs) - everything > 1


def test_arms_have_nearly_equal_numbers_of_pairs():
    rng = np.random.default_rng(0)
    world = make_world(rng, curvature=0.0)
    drawn = draw_candidates(world, world.gold, rng)
    for beta in (0.5, math.inf):
        # good responses are drawn more than once, and pairs of one response are dropped
        assert 0.9 * TRAIN * ACCEPTED / 2 < len(drawn.accepted(beta, rng).pairs) <= TRAIN * ACCEPTED / 2
