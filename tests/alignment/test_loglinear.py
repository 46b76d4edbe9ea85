import math

import numpy as np
import pytest

from alignment.testbed.loglinear import (
    Adam,
    as_groups,
    at,
    at_kl,
    draw,
    fit_pairs,
    log_softmax,
    logprobs_of,
    train_dpo,
)


def test_draws_follow_the_policy():
    """200,000 draws of 3 responses, seed 0: chi-squared with 2 degrees of freedom; 13.8 has a false alarm of 1e-3."""
    logprobs = np.log(np.array([[0.2, 0.3, 0.5]]))
    counts = np.bincount(draw(logprobs, 200_000, np.random.default_rng(0))[0], minlength=3)
    expected = 200_000 * np.exp(logprobs[0])
    assert (((counts - expected) ** 2) / expected).sum() < 13.8


def test_a_policy_is_put_at_the_kl_it_is_asked_for():
    rng = np.random.default_rng(0)
    reference, direction = rng.standard_normal((2, 5, 20))
    standing = at_kl(reference, direction, kl=0.7)
    kl = (standing.probabilities_P_M * np.log(standing.probabilities_P_M / standing.reference_P_M)).sum(-1).mean()
    assert kl == pytest.approx(0.7, abs=1e-4)


def test_a_direction_that_orders_nothing_is_refused():
    with pytest.raises(ValueError, match="orders nothing"):
        at_kl(np.zeros((2, 3)), np.ones((2, 3)))


def test_uplift_and_drift_by_hand():
    """Values 0 and 2 under a uniform reference: mean 1, sd 1. A policy with 3/4 on the second has mean 3/2."""
    values = np.array([[0.0, 2.0]])
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    standing = at_kl(np.zeros((1, 2)), np.array([[0.0, 1.0]]), kl)
    assert standing.uplift(values) == pytest.approx(0.5, abs=1e-4)
    assert standing.uplift(10 * values) == pytest.approx(0.5, abs=1e-4)
    assert standing.drift(10 * values) == pytest.approx(5, abs=1e-3)


def test_the_sigmoid_fit_has_the_log_odds_of_its_labels():
    """One feature, three labels for and one against: the maximum of the likelihood is log 3."""
    theta = fit_pairs(np.array([[1.0], [1.0], [1.0], [-1.0]]), ridge=1e-12)
    assert theta[0] == pytest.approx(math.log(3), abs=1e-5)


def test_the_hinge_fit_stops_at_its_margin():
    """Separable, so all that is left is to reach a margin of 1, up to the width of the smoothed corner."""
    theta = fit_pairs(np.array([[0.5], [0.5]]), loss="hinge", ridge=1e-4)
    assert 0.9 < 0.5 * theta[0] < 1.5


def test_the_fitted_point_is_a_minimum():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((50, 3)) + 0.3
    for loss in ("sigmoid", "hinge"):
        theta = fit_pairs(x, loss, ridge=0.01)
        width, corner = (0.05, 1.0) if loss == "hinge" else (1.0, 0.0)

        def objective(t: np.ndarray, width: float = width, corner: float = corner) -> float:
            return width * np.logaddexp(0, (corner - x @ t) / width).mean() + 0.005 * t @ t

        nearby = [objective(theta + 1e-3 * rng.standard_normal(3)) for _ in range(50)]
        assert objective(theta) <= min(nearby)


def test_dpo_by_adam_comes_to_the_same_point_as_newton():
    """beta * theta maximises the likelihood of the pairs; three to one has log odds log 3."""
    x = np.array([[1.0], [1.0], [1.0], [-1.0]])
    state = train_dpo(Adam.start(1), x, np.random.default_rng(0), beta=0.5, lr=0.02, batch=4, epochs=600)
    assert 0.5 * state.theta[0] == pytest.approx(math.log(3), abs=0.01)


def test_groups_say_what_was_drawn():
    drawn = np.array([[4, 4, 1]])
    rewards = np.arange(6.0)[None]
    (group,) = as_groups(drawn, gold=rewards)
    assert [c.text for c in group.candidates] == ["4", "4", "1"]
    assert group.rewards["gold"] == (4.0, 4.0, 1.0)
    (copied,) = as_groups(drawn, copies=True)
    assert len({c.text for c in copied.candidates}) == 3
    logits = np.random.default_rng(0).standard_normal((1, 6))
    (row,) = logprobs_of(logits, drawn)
    np.testing.assert_allclose(row.logprobs, at(log_softmax(logits), drawn)[0])
