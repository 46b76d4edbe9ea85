"""Score maps: fitted once, versioned, refused where nothing can be fitted."""

import math

import pytest

from alignment.errors import UserError
from alignment.relabeling import RewardConditioned
from alignment.score_maps import AffineFit, QuantileFit, ScoreMap


def test_an_affine_map_is_fitted_once_and_has_a_version():
    """Mean 0 and sd 2, three sds to an end: -6 is 1, 0 is 5.5, 6 is 10, and 6.1 is nowhere."""
    fitted = AffineFit().fit([-2.0, 2.0])
    assert [fitted(r) for r in (-6.0, 0.0, 6.0)] == [1.0, 5.5, 10.0]
    assert fitted(6.1) is None
    assert fitted.version == AffineFit().fit([2.0, -2.0]).version != AffineFit(sds=2).fit([-2.0, 2.0]).version


def test_a_quantile_map_spreads_goals_evenly_over_the_data():
    """Quantiles 0, 0.5 and 1 of 0, 1 and 100 are those numbers: goals 1, 5.5 and 10."""
    fitted = QuantileFit(knots=3).fit([0.0, 1.0, 100.0])
    assert [fitted(r) for r in (0.0, 0.5, 1.0, 100.0)] == [1.0, 3.2, 5.5, 10.0]


@pytest.mark.parametrize("fit", [AffineFit(), QuantileFit()])
def test_rewards_without_spread_fit_no_map(fit):
    with pytest.raises(UserError, match="are all 3"):
        fit.fit([3.0, 3.0, 3.0])


@pytest.mark.parametrize("fit", [AffineFit(), QuantileFit()])
def test_rewards_that_are_no_finite_number_are_left_out_of_a_fit(fit):
    """One NaN would make every quantile NaN, and one infinity the mean."""
    assert fit.fit([math.nan, 1.0, math.inf, 2.0, -math.inf]) == fit.fit([1.0, 2.0])


@pytest.mark.parametrize("fit", [AffineFit(), QuantileFit()])
@pytest.mark.parametrize("rewards", [[], [math.nan, math.inf]])
def test_without_any_finite_reward_the_reason_is_said(fit, rewards):
    with pytest.raises(UserError, match=f"of {len(rewards)} held-out rewards of the initial policy none is a finite"):
        fit.fit(rewards)


def test_a_goal_above_the_fitted_map_is_refused_in_one_line():
    """A check that half of the answers pass: of ten quantiles the sixth is the first at 1, so no goal is above 6."""
    how = RewardConditioned(scale=QuantileFit(), serve=10)
    with pytest.raises(UserError, match=r"^relabel\.serve = 10 is outside the goals 1 to 6 .*lower it") as refused:
        how.fitted([0.0] * 5 + [1.0] * 5)
    assert "\n" not in str(refused.value)
    assert how.model_copy(update={"serve": 6.0}).fitted([0.0] * 5 + [1.0] * 5).goals == (1, 6)


def test_a_given_map_is_never_fitted():
    """Whatever the rewards are: a goal keeps its meaning, and its version says which map it is of."""
    given = RewardConditioned(scale=ScoreMap(rewards=(0.0, 4.0)))
    assert given.fitted([7.0, 9.0]) == given.scale
    assert given.fitted([]).version != ScoreMap().version
