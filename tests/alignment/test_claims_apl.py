import numpy as np
import pytest

from alignment.testbed.apl import (
    BUDGETS,
    RESPONSES,
    STRATEGIES,
    Course,
    World,
    labels_saved,
    learn,
    make_world,
)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(np.random.default_rng(0), curvature=0.0)


def test_the_reference_wins_half_against_itself(world: World):
    assert world.win_rate(np.zeros(world.features.shape[-1])) == pytest.approx(0.5)


def test_a_policy_that_always_picks_the_best_wins_all_but_a_tie_with_it(world: World):
    """The best of 256 beats 255 and ties with itself."""
    sharp = np.linalg.lstsq(world.features.reshape(-1, 24), world.gold.ravel(), rcond=None)[0]
    assert world.win_rate(1e4 * sharp) == pytest.approx(1 - 0.5 / RESPONSES)


@pytest.mark.parametrize("name", ["certainty", "hybrid"])
def test_strategies_learn_from_their_labels(world: World, name: str):
    course = learn(world, STRATEGIES[name], "exact", 0)
    assert len(course.win_rates) == len(BUDGETS)
    assert course.win_rates[-1] > 0.8
    assert 0.5 < course.agreement < 1


def test_labels_saved_by_hand():
    """One reaches 0.9 at 64 labels. The other is at 0.85 with 192 and at 0.95 with 256, so at 0.9 with 224."""
    one = Course((0.8, 0.9, 0.9, 0.9, 0.9, 0.9), 0.6)
    other = Course((0.5, 0.6, 0.7, 0.8, 0.85, 0.95), 0.6)
    assert labels_saved(one, other) == pytest.approx(224 - 64)
    assert labels_saved(other, one) == pytest.approx(64 - 224)
