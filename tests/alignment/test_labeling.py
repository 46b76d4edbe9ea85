"""Gold as a labeler: its order, its errors, and what it leaves undecided."""

import math

import pytest

from alignment.labeling import ByGold
from alignment.types import Candidate, Failure, Group, Message, PreferencePair, Prompt


def group_of(number: int, *gold: float | None) -> Group:
    prompt = Prompt.of((Message(role="user", content=f"q{number}"),))
    candidates = tuple(
        Candidate(index=i, text=f"text {i}", token_ids=(2,), finish_reason="stop") for i in range(len(gold))
    )
    failures = tuple(
        Failure(prompt_id=prompt.id, candidate=i, model="gold", reason="no such word")
        for i, value in enumerate(gold)
        if value is None
    )
    return Group(prompt=prompt, prompt_ids=(1,), candidates=candidates, rewards={"gold": gold}, failures=failures)


def pair_of(group: Group, chosen: int = 0, rejected: int = 1) -> PreferencePair:
    return PreferencePair(prompt_id=group.prompt.id, chosen=chosen, rejected=rejected, source="best_worst", margin=2.0)


def ordered(how: ByGold, group: Group, chosen: int = 0, rejected: int = 1, seed: int = 0) -> PreferencePair:
    answer = how(pair_of(group, chosen, rejected), group, seed=(seed, 0))
    assert isinstance(answer, PreferencePair)
    return answer


def test_gold_keeps_or_turns_the_rewards_order_and_a_turned_pair_loses_the_rewards_margin():
    kept, turned = ordered(ByGold(), group_of(0, 3.0, 1.0)), ordered(ByGold(), group_of(0, 1.0, 3.0))
    assert (kept.chosen, kept.rejected, kept.margin, kept.source) == (0, 1, 2.0, "best_worst+gold")
    assert (turned.chosen, turned.rejected, turned.margin) == (1, 0, None)


@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_equal_gold_is_a_tie_and_a_missing_score_a_reason(noise: float):
    how, tied, missing = ByGold(noise=noise), group_of(0, 2.0, 2.0), group_of(0, 2.0, None)
    assert how(pair_of(tied), tied, seed=(0, 0)) == "gold ties"
    assert how(pair_of(missing), missing, seed=(0, 0)) == "gold: no such word"


def test_noise_errs_as_often_as_bradley_and_terry_say():
    """sigmoid(1.2 / 0.6) = 0.881 of 4,000 labels agree with gold; the standard error is 0.005."""
    right = sum(ordered(ByGold(noise=0.6), group_of(i, 1.2, 0.0)).chosen == 0 for i in range(4000)) / 4000
    assert right == pytest.approx(1 / (1 + math.exp(-2)), abs=0.02)


def test_one_question_has_one_answer_whichever_way_it_is_asked():
    groups, how = [group_of(i, 0.3, 0.0) for i in range(200)], ByGold(noise=1.0)
    asked = [ordered(how, g).chosen for g in groups]
    assert [ordered(how, g, 1, 0).chosen for g in groups] == asked
    assert [ordered(how, g).chosen for g in reversed(groups)] == asked[::-1]
    assert [ordered(how, g, seed=1).chosen for g in groups] != asked
    assert set(asked) == {0, 1}


def test_hardly_any_noise_overflows_nothing():
    assert ordered(ByGold(noise=5e-324), group_of(0, 0.0, 9.0)).chosen == 1
