"""Score maps: fitted once, versioned, refused where nothing can be fitted."""

import pytest

from alignment.errors import UserError
from alignment.score_maps import AffineFit, QuantileFit


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
