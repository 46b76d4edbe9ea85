"""Rewards that need no process: verifiers, and what becomes of a score that cannot be had."""

import pytest

from alignment.config import Engine
from alignment.errors import UserError
from alignment.rewards import Verifier
from alignment.types import Candidate, Group, Message, Prompt
from infra.engines import open_scorers
from infra.reward_models import RewardSource


def share_of(prompt: Prompt, completion: str, letter: str) -> float:
    """Of the completion's characters; ZeroDivisionError for an empty one."""
    return completion.count(letter) / len(completion)


def unbounded(prompt: Prompt, completion: str) -> float:
    return float(completion)


def scored(function: str, texts: list[str], **arguments) -> Group:
    prompt = Prompt.of((Message(role="user", content="Say a."),))
    candidates = tuple(
        Candidate(index=i, text=text, token_ids=(1,), finish_reason="stop") for i, text in enumerate(texts)
    )
    source = RewardSource(Verifier(function=f"{__name__}:{function}", arguments=arguments))
    with open_scorers(Engine(), {"check": source}) as scorers:
        [group] = scorers.score([Group(prompt=prompt, prompt_ids=(1,), candidates=candidates)])
    return group


def test_a_verifier_is_called_with_prompt_completion_and_arguments():
    """'abab' has two of four, 'b' none."""
    group = scored("share_of", ["abab", "b"], letter="a")
    assert group.rewards["check"] == (0.5, 0.0)
    assert group.failures == ()


def test_an_exception_is_a_missing_score_with_a_reason():
    group = scored("share_of", ["a", ""], letter="a")
    assert group.rewards["check"] == (1.0, None)
    [failure] = group.failures
    assert (failure.candidate, failure.model) == (1, "check")
    assert failure.reason == "ZeroDivisionError: division by zero"


def test_a_score_that_is_no_number_is_missing_too():
    group = scored("unbounded", ["nan", "inf", "2"])
    assert group.rewards["check"] == (None, None, 2.0)
    assert [f.reason for f in group.failures] == ["the score is nan", "the score is inf"]


@pytest.mark.parametrize("function", ["no_such_module:f", f"{__name__}:no_such_function"])
def test_a_verifier_that_is_not_there_is_said_before_anything_is_scored(function):
    with (
        pytest.raises(UserError, match=r"Name a function as module:name"),
        open_scorers(Engine(), {"check": RewardSource(Verifier(function=function))}),
    ):
        pass
