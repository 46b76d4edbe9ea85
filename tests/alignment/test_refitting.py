"""When the reward model is refitted, on which requests, with what it cannot go, and what a report says of it."""

import pytest

from alignment.config import RunConfig
from alignment.refitting import Refit
from alignment.summary import RunSummary, change_of, over_optimised, refitted_rounds

SANDBOX = {
    "run": "r",
    "policy": {"type": "scratch", "examples": 9},
    "world": {"type": "sandbox"},
    "prompts": {"type": "world"},
    "reward": {"type": "scalar_head", "model": {"type": "trained", "examples": 9}},
}


def config_of(**changes: object) -> RunConfig:
    return RunConfig.model_validate({**SANDBOX, "refit": {}, **changes})


def test_a_refit_follows_a_promotion_and_comes_every_so_many_rounds():
    """Every round: before round 2 where round 1 was promoted, not where it was round 0. Every other round: before
    rounds 2 and 4, where either of the two rounds before was promoted."""
    each, other = Refit(), Refit(every=2)
    assert [each.is_due(k, promoted=k - 1) for k in (1, 2, 3)] == [True] * 3
    assert not each.is_due(0, None)
    assert not each.is_due(2, None)
    assert not each.is_due(2, 0)
    assert [other.is_due(k, promoted=k - 1) for k in (1, 2, 3, 4)] == [False, True, False, True]
    assert [other.is_due(4, promoted) for promoted in (1, 2, 3)] == [False, True, True]
    assert (each.possible(0, 3), each.possible(2, 3), other.possible(0, 5), Refit(every=3).possible(0, 3)) == (
        2,
        1,
        2,
        0,
    )


def test_no_request_is_asked_twice_whichever_refits_took_place():
    assert [Refit(prompts=50).first_prompt(k) for k in (1, 2, 3)] == [0, 50, 100]
    assert [Refit(every=2, prompts=50).first_prompt(k) for k in (2, 4)] == [0, 50]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"reward": {"type": "scalar_head", "model": {"type": "scratch", "examples": 9}}},
            "set reward.type = 'scalar_head' with reward.model.type = 'trained'",
        ),
        ({"rounds": 1}, "refit.every = 1 with rounds = 1: no refit comes before the last round"),
        ({"relabel": {"type": "reward_conditioned", "serve": 1}}, "relabel with refit: a goal is a score"),
        ({"gate": {"type": "win_rate", "max_hacking_slope": 0.5}}, "gate.max_hacking_slope = 0.5 with refit"),
    ],
)
def test_what_a_refit_cannot_go_with_is_refused(changes: dict[str, object], said: str):
    with pytest.raises(ValueError, match="value_error") as error:
        config_of(**changes)
    assert said in str(error.value)


def test_a_run_without_a_refit_has_the_identity_it_had():
    assert "refit" not in RunConfig.model_validate(SANDBOX).model_dump()
    assert config_of().model_dump()["refit"]["every"] == 1


def round_of(number: int, *, refit: bool, **metrics: float) -> dict[str, object]:
    name = {"uri": "u", "digest": "d"}
    step = {"uri": "u", "recipe": "r", "seconds": 1.0, "reused": False}
    return {
        "round": number,
        "verdict": "promoted",
        "reasons": (),
        "policy": name,
        "steps": {"refit-model": step} if refit else {"train": step},
        "metrics": metrics,
    }


def test_rewards_on_either_side_of_a_refit_are_not_compared():
    """The mean fell from 5 to 1 with the scale; the gain, measured by one model, rose, and gold fell."""
    initial = {"metrics": {"reward_mean": 4.0, "gold_mean": 6.0, "gold_low": 5.9, "gold_high": 6.1}}
    first = round_of(0, refit=False, reward_mean=5.0, reward_gain=1.0, gold_mean=7.0, gold_low=6.9, gold_high=7.1)
    second = round_of(1, refit=True, reward_mean=1.0, reward_gain=0.5, gold_mean=6.0, gold_low=5.9, gold_high=6.1)
    run = RunSummary.model_validate(
        {"run": "r", "store": "s", "config": {}, "initial": initial, "rounds": (first, second)}
    )
    assert refitted_rounds(run) == (1,)
    assert change_of(run, "reward_mean") is None
    assert change_of(run, "gold_mean") is not None
    assert over_optimised(run) == (1,)
    before = run.model_copy(update={"rounds": run.rounds[:1]})
    assert change_of(before, "reward_mean") is not None
