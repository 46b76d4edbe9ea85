import math

import numpy as np
import pytest

from alignment.testbed.claims import T_975, Claim, Experiment, interval, judge, matching, verdict


def test_an_interval_by_hand():
    """Mean 2, sd sqrt(((-1)^2 + 0 + 1^2) / 2) = 1, t with 2 degrees of freedom 4.303: half width 4.303 / sqrt 3."""
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert (low, high) == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))


def test_quantiles_are_those_of_students_t():
    stats = pytest.importorskip("scipy.stats")
    expected = [stats.t.ppf(0.975, df) for df in range(1, len(T_975) + 1)]
    np.testing.assert_allclose(T_975, expected, atol=6e-4)


def test_an_interval_covers_the_mean_as_often_as_it_says():
    """2,000 samples of 8 normals, seed 0. Coverage 0.95 has a standard error of 0.0049: false alarm below 1e-4."""
    rng = np.random.default_rng(0)
    ends = [interval(row.tolist())[1:] for row in rng.standard_normal((2000, 8))]
    assert abs(np.mean([low < 0 < high for low, high in ends]) - 0.95) < 4 * 0.0049


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.2, "holds"),
        (-0.1, 0.2, "not resolved"),
        (-0.2, -0.1, "does not hold"),
        (0.0, 0.2, "not resolved"),
        (0.0, 0.0, "does not hold"),
        (-0.2, 0.0, "does not hold"),
    ],
)
def test_a_claim_of_more_than_zero_is_decided_by_the_interval(low: float, high: float, expected: str):
    assert verdict(Claim("a b", "x > 0", "none", above=0), low, high) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.02, 0.02, "holds"), (-0.02, 0.04, "not resolved"), (0.03, 0.05, "does not hold"), (-9, 9, "not resolved")],
)
def test_a_null_control_holds_only_if_the_interval_is_inside(low: float, high: float, expected: str):
    assert verdict(Claim("a b", "|x| < 0.03", "none", above=-0.03, below=0.03), low, high) == expected


ONE = Experiment(
    (Claim("rso x", "x > 0", "paper: 1", above=0), Claim("rso y", "y < 0", "none", below=0)),
    lambda seed: {"rso x": 1.0 + seed, "rso y": math.nan if seed == 1 else -1.0},
    seeds=3,
)


def test_a_value_missing_in_one_seed_leaves_the_claim_unresolved_and_without_a_number():
    x, y = judge(ONE, [ONE.measure(seed) for seed in range(3)], seconds=3.0)
    assert (x.ours, x.verdict, x.seconds) == (2.0, "not resolved", 1.5)  # 2 ± 2.48
    assert (y.ours, y.low, y.high, y.verdict) == (None, None, None, "not resolved")


def test_claims_are_found_by_any_part_of_their_name():
    (only,) = matching([ONE], "y")
    assert [c.name for c in only.claims] == ["rso y"]
    assert matching([ONE], "prs") == []
