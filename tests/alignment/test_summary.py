import json

import pytest
from pydantic import ValidationError

from alignment.summary import (
    Change,
    InitialSummary,
    Interval,
    PolicyName,
    RoundSummary,
    RunSummary,
    change_of,
    interval_of,
    metrics_before,
    over_optimised,
)
from alignment.types import Step

POLICY = PolicyName(uri="./runs/objects/policy/ab", digest="cd")


def measured(gold: float, reward: float) -> dict[str, float | None]:
    return {"gold_mean": gold, "gold_low": gold - 0.1, "gold_high": gold + 0.1, "reward_mean": reward}


def a_round(k: int, verdict: str, metrics: dict[str, float | None]) -> RoundSummary:
    step = Step(uri="./runs/objects/pairs/ef", recipe="ef", seconds=1.5, reused=True)
    return RoundSummary(
        round=k, verdict=verdict, reasons=("because",), policy=POLICY, steps={"select": step}, metrics=metrics
    )


def a_run(*rounds: RoundSummary) -> RunSummary:
    return RunSummary(
        run="r", store="./runs", config={"rounds": 3}, initial=InitialSummary(metrics=measured(6.0, 0.0)), rounds=rounds
    )


def test_json_is_what_show_promises():
    shown = json.loads(json.dumps(a_run(a_round(0, "promoted", {"gold_mean": None})).model_dump(mode="json")))
    assert set(shown) == {"run", "store", "config", "initial", "rounds"}
    assert set(shown["initial"]) == {"policy", "metrics"}
    assert shown["rounds"] == [
        {
            "round": 0,
            "verdict": "promoted",
            "reasons": ["because"],
            "policy": {"uri": "./runs/objects/policy/ab", "digest": "cd"},
            "steps": {"select": {"uri": "./runs/objects/pairs/ef", "recipe": "ef", "seconds": 1.5, "reused": True}},
            "metrics": {"gold_mean": None},
        }
    ]


def test_a_summary_survives_its_json():
    run = a_run(a_round(0, "rejected", measured(6.1, 1.0)))
    assert RunSummary.model_validate_json(run.model_dump_json()) == run


def test_rounds_out_of_order_are_refused():
    with pytest.raises(ValidationError, match=r"rounds \[1, 0\] are not in order"):
        a_run(a_round(1, "promoted", {}), a_round(0, "promoted", {}))


def test_an_interval_is_found_under_the_stem_of_its_mean():
    assert interval_of(measured(6.0, 0.0), "gold_mean") == Interval(mean=6.0, low=5.9, high=6.1)
    assert interval_of({"win_rate": 0.5, "win_rate_low": 0.4, "win_rate_high": 0.6}, "win_rate") == Interval(
        mean=0.5, low=0.4, high=0.6
    )
    assert interval_of({"kl_initial": 0.0}, "kl_initial") == Interval(mean=0.0)
    assert interval_of({"kl_initial": None}, "kl_initial") is None


@pytest.mark.parametrize(
    ("after", "direction"),
    [
        (Interval(mean=7, low=6.51, high=7.5), "rose"),
        (Interval(mean=7, low=6.5, high=7.5), "overlaps"),  # ends that touch overlap
        (Interval(mean=5, low=4.5, high=5.49), "fell"),
        (Interval(mean=9), "no_interval"),
    ],
)
def test_only_disjoint_intervals_show_a_direction(after: Interval, direction: str):
    assert Change(before=Interval(mean=6, low=5.5, high=6.5), after=after, round=0).direction == direction


def test_the_change_is_measured_on_the_last_promoted_round_not_on_the_last_one():
    run = a_run(a_round(0, "promoted", measured(7.0, 1.0)), a_round(1, "rejected", measured(9.0, 2.0)))
    change = change_of(run, "gold_mean")
    assert change
    assert (change.before.mean, change.after.mean, change.round) == (6.0, 7.0, 0)
    assert change_of(run, "win_rate") is None
    assert change_of(a_run(a_round(0, "rejected", measured(9.0, 2.0))), "gold_mean") is None


def test_a_round_is_compared_with_the_policy_it_had_to_beat():
    run = a_run(
        a_round(0, "promoted", measured(7.0, 1.0)),
        a_round(1, "rejected", measured(1.0, 2.0)),
        a_round(2, "promoted", measured(8.0, 3.0)),
    )
    assert [metrics_before(run, k)["gold_mean"] for k in range(3)] == [6.0, 7.0, 7.0]


def test_over_optimisation_is_reward_up_and_gold_down_beyond_its_interval():
    """Against 6.0 [5.9, 6.1]: 5.75 [5.65, 5.85] is below, 5.85 [5.75, 5.95] overlaps."""
    assert over_optimised(a_run(a_round(0, "rejected", measured(5.75, 1.0)))) == (0,)
    assert over_optimised(a_run(a_round(0, "rejected", measured(5.85, 1.0)))) == ()
    assert over_optimised(a_run(a_round(0, "rejected", measured(5.75, -1.0)))) == ()
    assert over_optimised(a_run(a_round(0, "rejected", {"gold_mean": 1.0, "reward_mean": 9.0}))) == ()


def test_the_policy_in_use_is_the_last_promoted_one_or_the_initial_one():
    better = POLICY.model_copy(update={"digest": "better"})
    promoted = a_round(0, "promoted", {}).model_copy(update={"policy": better})
    assert a_run(promoted, a_round(1, "rejected", {})).policy == better
    assert a_run(a_round(0, "rejected", {})).policy is None
