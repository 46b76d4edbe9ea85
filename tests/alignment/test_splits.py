import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import UserError
from alignment.splits import split_held_out
from alignment.types import Message, Prompt


def ask(text, preference=None):
    return Prompt.of((Message(role="user", content=text),), preference)


PROMPTS = [ask(f"Question {i}") for i in range(400)]


def test_the_held_out_share_is_met_up_to_chance():
    """400 prompts at 0.2: 80 expected, standard deviation 8; four of them is the bound."""
    train, held_out = split_held_out(PROMPTS, 0.2)
    assert len(train) + len(held_out) == 400
    assert abs(len(held_out) - 80) < 32


@given(st.randoms(use_true_random=False), st.floats(0.1, 0.9))
def test_a_prompt_keeps_its_side_whatever_its_neighbours_and_order(rng: random.Random, share):
    some = rng.sample(PROMPTS, 200)
    held_out = {p.id for p in split_held_out(PROMPTS, share)[1]}
    assert [p.id for p in split_held_out(some, share)[1]] == [p.id for p in some if p.id in held_out]


def test_a_larger_share_only_adds():
    small, large = ({p.id for p in split_held_out(PROMPTS, share)[1]} for share in (0.1, 0.3))
    assert small < large


def test_one_request_under_several_preferences_stays_on_one_side():
    asked = [ask(f"Question {i}", preference) for i in range(50) for preference in (None, "Be brief.", "Be kind.")]
    for side in split_held_out(asked, 0.5):
        assert len(side) == 3 * len({p.messages for p in side})


@pytest.mark.parametrize(("prompts", "share", "reason"), [([], 0.2, "train on"), (PROMPTS[:1], 0.001, "hold out")])
def test_an_empty_side_is_refused(prompts, share, reason):
    with pytest.raises(
        UserError, match=f"{len(prompts)} prompts and evaluate.held_out = {share} leave none to {reason}"
    ):
        split_held_out(prompts, share)


def test_all_prompts_held_out_is_refused():
    with pytest.raises(UserError, match="leave none to train on: give more prompts, or lower"):
        split_held_out(PROMPTS[:1], 0.999999)
