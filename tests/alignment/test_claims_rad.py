import numpy as np
import pytest

from alignment.testbed.rad import (
    BETA,
    FEATURES,
    Network,
    compared,
    make_world,
    pairs_of,
    rank_correlation,
    relabelled,
    unswapped,
)


def test_the_low_goal_prefers_the_low_answer():
    world = make_world(0, rho=0.3)
    plain, rows = pairs_of(world), relabelled(world)
    n = len(plain.prompts)
    assert len(rows.prompts) == 2 * n
    score = world.scores[rows.prompts, rows.chosen]
    np.testing.assert_array_equal(score, rows.goals)  # whichever is chosen scored what is asked for
    assert (world.scores[plain.prompts, plain.chosen] > world.scores[plain.prompts, plain.rejected]).all()
    expected = {*zip(plain.prompts, plain.chosen, plain.rejected, strict=True)}
    forgot = unswapped(world)
    assert {*zip(forgot.prompts, forgot.chosen, forgot.rejected, strict=True)} == expected
    np.testing.assert_array_equal(forgot.goals, rows.goals)


def test_rho_is_the_share_of_prompts_that_mix_modes():
    """800 prompts, seed 0; four fair coins agree in 1/8 of the prompts that may mix. 4 standard errors are 0.06."""
    for rho, mixed in ((0.0, 0.0), (0.3, 0.3 * 7 / 8)):
        modes = np.sign(make_world(0, rho).features[..., -1])
        assert abs((np.abs(modes.sum(1)) < 4).mean() - mixed) < 0.06


def test_the_networks_update_follows_the_gradient_of_the_dpo_loss():
    """Adam's first moment after one step from zero moments is a tenth of the gradient: compared with differences."""
    rng = np.random.default_rng(0)
    network = Network(rng)
    network.adam = network.adam._replace(theta=network.adam.theta + 0.3 * rng.standard_normal(len(network.adam.theta)))
    features, goals = rng.standard_normal((8, FEATURES)), np.tile(rng.uniform(1, 10, 4), 2)

    def loss(theta: np.ndarray) -> float:
        shifted = Network(rng)
        shifted.adam = shifted.adam._replace(theta=theta)
        scores = shifted.scores(features[:, None], goals)[:, 0]
        return float(np.logaddexp(0, -BETA * (scores[:4] - scores[4:])).mean())

    theta = network.adam.theta
    network.step(features, goals)
    gradient = 10 * network.adam.first
    uphill = gradient / np.linalg.norm(gradient)
    slope = (loss(theta + 0.02 * uphill) - loss(theta - 0.02 * uphill)) / 0.04
    assert np.linalg.norm(gradient) == pytest.approx(slope, rel=0.01)


def test_at_the_start_both_copies_of_a_pair_cancel_for_a_network_that_cannot_see_the_goal():
    """All scores are 0, so each copy pulls with -beta / 2 and the swapped one pulls back."""
    world = make_world(0, rho=0.3)
    rows = relabelled(world)
    first = sorted(set(rows.prompts.tolist()))[:3]
    batch = np.flatnonzero(np.isin(rows.prompts, first))
    assert len(batch) == 6
    prompts = np.tile(rows.prompts[batch], 2)
    responses = np.concatenate([rows.chosen[batch], rows.rejected[batch]])
    network = Network(np.random.default_rng(0))
    network.step(world.features[prompts, responses], np.full(12, 5.5))
    np.testing.assert_allclose(network.adam.first, 0, atol=1e-6)


def test_rank_correlation_by_hand():
    assert rank_correlation((1, 2, 3), [0.1, 0.2, 0.9]) == pytest.approx(1)
    assert rank_correlation((1, 2, 3), [0.2, 0.1, 0.9]) == pytest.approx(0.5)  # 1 - 6 * 2 / (3 * 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rho", "seeds", "low", "high"), [(0.1, 10, 0.1, 2.0), (0.3, 4, 0.2, 2.0), (1.0, 2, -1.0, 0.0)]
)
def test_rad_gains_where_few_prompts_mix_modes_and_loses_where_all_do(rho: float, seeds: int, low: float, high: float):
    """At 1 nat: gold at goal 10 against plain DPO's, means over seeds. Where every pair crosses
    modes DPO has the information already, so a gain there would be the testbed's fault. Whatever rho is, good rejected
    answers keep their log-probability under their own goal, of which DPO takes more than half a nat."""
    found = [compared(seed, rho) for seed in range(seeds)]

    def mean(name: str) -> float:
        return float(np.mean([one[f"rad {name}, rho = {rho:g}"] for one in found]))

    assert low < mean("R3 quality") < high
    assert mean("R2 unlearning") >= -0.1
    assert mean("R2 unlearning against dpo") > 0.5
