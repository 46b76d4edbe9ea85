"""RAD: rows under goals, worked out by hand, on real scores, and with each known defect put back."""

import gzip
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from goal_rows import Unswapped, check_each_goal_prefers_its_own_answer, group_of, pair_of, relabelled, told, words
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alignment.config import PromptFile, RunConfig
from alignment.models import Pretrained
from alignment.relabeling import RewardConditioned
from alignment.rendering import conversation
from alignment.rewards import Pairwise
from alignment.score_maps import ScoreMap
from alignment.splits import split_held_out


@pytest.mark.parametrize("placement", ["system", "user"])
def test_the_row_with_the_low_goal_prefers_the_low_answer(placement):
    check_each_goal_prefers_its_own_answer(RewardConditioned(placement=placement))


@pytest.mark.parametrize("placement", ["system", "user"])
def test_without_the_swap_that_would_be_seen(placement):
    with pytest.raises(AssertionError):
        check_each_goal_prefers_its_own_answer(Unswapped(placement=placement))


def test_a_row_has_a_prompt_a_condition_and_indices_of_its_own():
    """Candidates 2 and 0 of four, so their group under a goal holds two; the pair's margin is gap squared, 4.5^2."""
    group = group_of("q", (3.5, 5.0, 8.0, 1.0))
    result = relabelled([group], [pair_of(group, 2, 0)])
    high, low = result.pairs
    assert [c.text for c in result.groups[0].candidates] == ["q 0", "q 2"]
    assert (high.chosen, high.rejected, low.chosen, low.rejected) == (1, 0, 0, 1)
    assert len({high.prompt_id, low.prompt_id, group.prompt.id}) == 3
    assert high.margin == low.margin == pytest.approx(20.25)
    for made, pair in zip(result.groups, result.pairs, strict=True):
        assert made.prompt.goal is not None
        assert pair.condition == made.prompt.goal.text
        assert made.prompt_ids == words(made.prompt)
        assert made.rewards["reward"] == (3.5, 8.0)
        # drawn under another prompt, so the sampler's number answers another question
        assert [c.logprob for c in made.candidates] == [None, None]
    assert result.groups[0].candidates[1].token_ids == group.candidates[2].token_ids


@given(st.lists(st.floats(0, 11, allow_nan=False), min_size=2, max_size=8), st.floats(0, 4))
@settings(max_examples=60, deadline=None)
def test_rows_are_twice_the_pairs_whose_gap_is_wide_enough(rewards, min_gap):
    group = group_of("q", rewards)
    best, worst = int(np.argmax(rewards)), int(np.argmin(rewards))
    result = relabelled(
        [group], [pair_of(group, best, worst)] if best != worst else [], RewardConditioned(min_gap=min_gap)
    )
    on_map = min(rewards) >= 1 and max(rewards) <= 10
    gap = round(round(max(rewards), 1) - round(min(rewards), 1), 1)
    assert len(result.pairs) == (2 if best != worst and on_map and gap > 0 and gap >= min_gap else 0)
    assert len(result.pairs) + 2 * len(result.dropped) == (2 if best != worst else 0)


def test_ties_give_no_row_even_where_any_gap_will_do():
    """7.51 and 7.49 are both the goal 7.5: one prompt with two opposite labels."""
    group = group_of("q", (7.51, 7.49))
    result = relabelled([group], [pair_of(group, 0, 1)], RewardConditioned(min_gap=0))
    assert [d.reason for d in result.dropped] == ["both completions have the same goal"]
    assert result.pairs == ()


def test_a_gap_of_exactly_the_least_is_kept():
    """8.2 - 7.2 is 0.9999999999999991 in floats and 1.0 in goals."""
    group = group_of("q", (8.2, 7.2))
    assert len(relabelled([group], [pair_of(group, 0, 1)], RewardConditioned(min_gap=1.0)).pairs) == 2


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        ((None, 3.0), "its chosen completion has no score"),
        ((8.0, None), "its rejected completion has no score"),
        ((math.nan, 3.0), "its chosen completion's reward nan is outside the score map's 1 to 10"),
        ((math.inf, 3.0), "its chosen completion's reward inf is outside the score map's 1 to 10"),
        ((8.0, -100.0), "its rejected completion's reward -100 is outside the score map's 1 to 10"),
        ((3.0, 8.0), "its label contradicts its scores"),
        ((8.0, 7.5), "its goals differ by less than relabel.min_gap = 1"),
    ],
)
def test_a_pair_without_two_goals_is_dropped_with_its_reason(rewards, reason):
    """A sentinel, a NaN or a clamp to the nearest end would train on a goal that nobody scored."""
    group = group_of("q", rewards)
    result = relabelled([group], [pair_of(group, 0, 1)])
    assert (result.pairs, [d.reason for d in result.dropped]) == ((), [reason])
    assert result.dropped[0].item == f"{group.prompt.id}:0,1"


def test_pairs_of_one_prompt_with_one_goal_share_a_group():
    """Goals 8 (twice), 5 and 3 of one prompt: three prompts, and under 8 both pairs."""
    group = group_of("q", (8.0, 5.0, 3.0))
    result = relabelled([group], [pair_of(group, 0, 1), pair_of(group, 0, 2)])
    assert [len(g.candidates) for g in result.groups] == [3, 2, 2]
    assert told(result) == [(8, "q 0", "q 1"), (5, "q 1", "q 0"), (8, "q 0", "q 2"), (3, "q 2", "q 0")]


def test_both_copies_differ_in_id_and_follow_their_question_into_one_split():
    """The split sees questions, which is before there are goals; a filter by prompt id keeps both copies."""
    groups = [group_of(f"q{i}", (8.0, 3.0)) for i in range(40)]
    train, held_out = split_held_out([g.prompt for g in groups], 0.5)
    kept = [g for g in groups if g.prompt in train]
    result = relabelled(kept, [pair_of(g, 0, 1) for g in kept])
    assert len({p.prompt_id for p in result.pairs}) == 2 * len(kept)
    assert not {g.prompt.at_goal(None).id for g in result.groups} & {p.id for p in held_out}


def test_the_half_variant_keeps_both_rows_of_half_the_pairs_wherever_they_stand():
    """40 pairs, half of them: 40 rows in 20 questions, from the whole list and not from its beginning; the other order
    of prompts draws the same ones."""
    groups = [group_of(f"q{i}", (8.0, 3.0)) for i in range(40)]
    half = RewardConditioned(share=0.5)
    result = relabelled(groups, [pair_of(g, 0, 1) for g in groups], half)
    questions = [g.prompt.at_goal(None).id for g in result.groups]
    assert len(result.pairs) == 40
    assert {questions.count(q) for q in questions} == {2}
    assert set(questions) != {g.prompt.id for g in groups[:20]}
    reverse = relabelled(groups[::-1], [pair_of(g, 0, 1) for g in groups[::-1]], half)
    assert {g.prompt.id for g in reverse.groups} == {g.prompt.id for g in result.groups}


def test_text_is_labelled_by_what_it_scored_and_not_by_what_was_asked():
    """Sampled at goal 10, scored 6 and 2: the goals are 6 and 2, and the old goal is gone from both prompts."""
    how = RewardConditioned()
    group = group_of("q", (6.0, 2.0), goal=how.serving)
    result = relabelled([group], [pair_of(group, 0, 1)], how)
    assert [goal for goal, *_ in told(result)] == [6, 2]
    for made in result.groups:
        (system, user) = conversation(made.prompt)
        assert how.serving.text not in system.content
        assert user.content == "q"


def test_a_row_that_would_lose_its_goal_to_the_context_is_dropped():
    group = group_of("q", (8.0, 3.0))
    length = len(words(group.prompt.at_goal(RewardConditioned().goal(8)))) + 3
    assert len(relabelled([group], [pair_of(group, 0, 1)], context=length).pairs) == 2
    [lost] = relabelled([group], [pair_of(group, 0, 1)], context=length - 1).dropped
    assert lost.reason == f"goal, prompt and completion of {length} tokens exceed the policy's context of {length - 1}"


def test_whole_goals_have_no_decimals():
    assert "score of 8," in RewardConditioned().goal(8.0).text
    assert "score of 7.5," in RewardConditioned().goal(7.5).text


def test_where_the_goals_lie_is_told_beside_the_one_served():
    """Goals 3, 8, 4 and 9: serving 10 asks for more than any row."""
    groups = [group_of("a", (8.0, 3.0)), group_of("b", (9.0, 4.0))]
    metrics = relabelled(groups, [pair_of(g, 0, 1) for g in groups]).metrics
    assert (metrics["goal_min"], metrics["goal_median"], metrics["goal_max"], metrics["goal_serve"]) == (3, 6, 9, 10)
    assert (metrics["relabelled"], metrics["left_out"], metrics["dropped"]) == (4, 0, 0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"serve": 11}, "relabel.serve = 11 is outside the score map's goals 1 to 10"),
        ({"serve": 9, "scale": {"type": "given", "rewards": [0, 1], "goals": [1, 5]}}, "goals 1 to 5"),
        ({"text": "no number"}, "must say {goal} once"),
        ({"min_gap": -1}, "greater than or equal to 0"),
        ({"scale": {"type": "given", "rewards": [1, 1]}}, "knots increase"),
        ({"scale": {"type": "given", "rewards": [0, 1, 2]}}, "3 rewards for 2 goals"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_read(fields, said):
    with pytest.raises(ValidationError, match=re.escape(said)):
        RewardConditioned.model_validate(fields)


def test_scores_relative_to_one_completion_of_each_prompt_are_no_goals():
    said = "relabel with reward.type = 'pairwise': its scores are relative to one completion of each prompt"
    with pytest.raises(ValidationError, match=re.escape(said)):
        RunConfig(
            run="r",
            policy=Pretrained(model="m"),
            prompts=PromptFile(path="p.jsonl"),
            reward=Pairwise(model=Pretrained(model="r")),
            relabel=RewardConditioned(),
        )


def test_on_real_scores_the_rows_are_exact(shared_data: Path):
    """805 prompts, 24 models, preferences from 1 to 2 on a map to 1..10: each best-against-worst pair counted by hand,
    for two widths of the gap filter."""
    path = shared_data / "candidates" / "alpaca_eval_v2.24models.jsonl.gz"
    scale = ScoreMap(rewards=(1.0, 2.0), goals=(1.0, 10.0))
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    groups = [group_of(str(row["prompt_id"]), [c["preference"] for c in row["candidates"]]) for row in rows]
    best_worst = [(np.argmax(g.rewards["reward"]), np.argmin(g.rewards["reward"])) for g in groups]
    pairs = [pair_of(g, int(best), int(worst)) for g, (best, worst) in zip(groups, best_worst, strict=True)]
    for min_gap in (1.0, 6.0):
        wide = 0
        for row in rows:
            tenths = [round(10 * (1 + 9 * (c["preference"] - 1))) for c in row["candidates"]]
            wide += max(tenths) - min(tenths) >= 10 * min_gap
        result = relabelled(groups, pairs, RewardConditioned(min_gap=min_gap), scale=scale)
        assert len(result.pairs) == 2 * wide
        assert len(result.dropped) == len(rows) - wide
        for (goal, chosen, _), (low, swapped, _) in zip(told(result)[::2], told(result)[1::2], strict=True):
            assert goal - low >= min_gap - 1e-9
            assert chosen != swapped


NUMERALS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def test_goals_are_said_in_words_where_there_are_some():
    """7.4 on a map without decimals is the goal 7, and so the seventh word; without words numbers are written."""
    spelled = RewardConditioned(scale=ScoreMap(decimals=0), words=NUMERALS, text="Make it {goal}.")
    group = group_of("q", (7.4, 2.6))
    result = relabelled([group], [pair_of(group, 0, 1)], spelled, scale=ScoreMap(decimals=0))
    assert [pair.condition for pair in result.pairs] == ["Make it seven.", "Make it three."]
    assert spelled.serving.text == "Make it ten."
    assert RewardConditioned(text="Make it {goal}.").serving.text == "Make it 10."


@pytest.mark.parametrize(
    ("words", "decimals"), [(NUMERALS[:9], 0), ((*NUMERALS[:9], "one"), 0), ((*NUMERALS, "ten"), 0), (NUMERALS, 1)]
)
def test_every_whole_goal_has_one_word(words, decimals):
    with pytest.raises(ValidationError, match=r"relabel\.words has"):
        RewardConditioned(scale=ScoreMap(decimals=decimals), words=words)


def test_without_words_a_recipe_has_the_identity_it_had():
    assert "words" not in RewardConditioned().model_dump()
