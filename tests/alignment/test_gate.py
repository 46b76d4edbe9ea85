import math

import pytest
from pydantic import TypeAdapter, ValidationError

from alignment.gate import Gate, PreferenceAccuracy, WinRate

GOOD = {
    "win_rate": 0.62,
    "win_rate_low": 0.57,
    "win_rate_high": 0.67,
    "kl_initial": 3.0,
    "length_ratio": 1.1,
    "distinct_ratio": 0.9,
    "truncated_rate": 0.02,
    "failure_rate": 0.0,
    "hacking_slope": 0.1,
}


def test_a_better_policy_within_its_budgets_is_promoted_and_told_why():
    verdict = WinRate()(GOOD)
    assert verdict.promoted
    assert verdict.reasons == ("win_rate is 0.62, 95% interval 0.57 to 0.67: its lower end exceeds 0.5.",)


def test_the_lower_end_must_exceed_the_threshold_not_meet_it():
    verdict = WinRate(min_win_rate=0.57)(GOOD)
    assert not verdict.promoted
    assert verdict.reasons == ("win_rate is 0.62, 95% interval 0.57 to 0.67: its lower end does not exceed 0.57.",)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"max_kl": 2.5}, "kl_initial is 3, above its bound of 2.5."),
        ({"max_length_ratio": 1.05}, "length_ratio is 1.1, above its bound of 1.05."),
        ({"min_distinct_ratio": 0.95}, "distinct_ratio is 0.9, below its bound of 0.95."),
        ({"max_truncated_rate": 0.01}, "truncated_rate is 0.02, above its bound of 0.01."),
        ({"max_hacking_slope": 0.05}, "hacking_slope is 0.1, above its bound of 0.05."),
    ],
)
def test_each_broken_budget_is_named_with_both_numbers(budget, reason):
    verdict = WinRate(**budget)(GOOD)
    assert not verdict.promoted
    assert verdict.reasons == (reason,)


def test_a_budget_met_exactly_is_held():
    budgets = WinRate(
        max_kl=3, max_length_ratio=1.1, min_distinct_ratio=0.9, max_truncated_rate=0.02, max_hacking_slope=0.1
    )
    assert budgets(GOOD).promoted


def test_every_reason_is_given_at_once():
    """A losing policy that also fails to be scored and grew long: three sentences, the win rate first."""
    bad = GOOD | {"win_rate_low": 0.4, "length_ratio": 2.5, "failure_rate": 0.2}
    reasons = WinRate()(bad).reasons
    assert [r.split()[0] for r in reasons] == ["win_rate", "length_ratio", "failure_rate"]


@pytest.mark.parametrize("name", ["length_ratio", "distinct_ratio", "failure_rate"])
@pytest.mark.parametrize("missing", [None, "absent"])
def test_a_budget_that_was_not_measured_is_not_held(name, missing):
    metrics = GOOD | {name: None} if missing is None else {k: v for k, v in GOOD.items() if k != name}
    verdict = WinRate()(metrics)
    assert not verdict.promoted
    assert [r.split(",")[0] for r in verdict.reasons] == [f"{name} was not measured"]


def test_no_interval_is_no_promotion():
    """One held-out prompt, or no reward model: there is a rate at most, and nothing to say how sure it is."""
    verdict = WinRate()(GOOD | {"win_rate": 1.0, "win_rate_low": None, "win_rate_high": None})
    assert verdict.reasons == ("win_rate_low was not measured, so its bound of 0.5 cannot be held.",)


@pytest.mark.parametrize("name", [n for n in GOOD if n not in ("win_rate", "win_rate_high")])
def test_nan_never_passes(name):
    strict = WinRate(max_kl=9, max_truncated_rate=1, max_hacking_slope=9)
    assert strict(GOOD).promoted
    assert not strict(GOOD | {name: math.nan}).promoted


def test_a_budget_of_none_bounds_nothing():
    open_gate = WinRate(max_length_ratio=None, min_distinct_ratio=None, max_failure_rate=None)
    assert open_gate({"win_rate": 0.9, "win_rate_low": 0.8, "win_rate_high": 1.0}).promoted


def test_offline_runs_are_judged_by_held_out_pairs_under_the_same_budgets():
    metrics = GOOD | {"pair_accuracy": 0.7, "pair_accuracy_low": 0.64, "pair_accuracy_high": 0.76}
    assert PreferenceAccuracy(min_accuracy=0.6)(metrics).promoted
    assert not PreferenceAccuracy(min_accuracy=0.65)(metrics).promoted
    assert not PreferenceAccuracy(min_accuracy=0.6, max_kl=1)(metrics).promoted


def test_gates_are_told_apart_by_type():
    parse = TypeAdapter(Gate).validate_python
    assert parse({"type": "win_rate", "max_kl": 10}) == WinRate(max_kl=10)
    assert parse({"type": "preference_accuracy"}) == PreferenceAccuracy()
    with pytest.raises(ValidationError):
        parse({"type": "win_rate", "min_win_rate": 1.5})
    with pytest.raises(ValidationError):
        parse({"type": "win_rate", "max_kl": 0})
