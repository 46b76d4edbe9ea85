"""Rewards that need no process: verifiers, and what becomes of a score that cannot be had."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from alignment.ensembles import Standard
from alignment.errors import UserError
from alignment.execution import Engine
from alignment.models import Pretrained
from alignment.rewards import Ensemble, ScalarHead, Verifier
from alignment.types import Candidate, Goal, Group, Message, Prompt
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


def told(prompt: Prompt, completion: str, seen: str) -> float:
    """1 where the prompt shows anything of a goal, 0 where it does not."""
    return float(seen in prompt.model_dump_json() or seen in str(prompt.goal))


def test_no_reward_sees_the_goal_that_a_completion_was_sampled_for():
    """A judge that reads the goal scores obedience. The group itself keeps its prompt."""
    goal = Goal(text="Score 9.")
    prompt = Prompt.of((Message(role="user", content="Say a."),), goal=goal)
    candidate = Candidate(index=0, text="a", token_ids=(1,), finish_reason="stop")
    source = RewardSource(Verifier(function=f"{__name__}:told", arguments={"seen": "Score 9."}))
    with open_scorers(Engine(), {"check": source}) as scorers:
        [group] = scorers.score([Group(prompt=prompt, prompt_ids=(1, 2, 3), candidates=(candidate,))])
        [drafts] = scorers([prompt], [["a"]])
    assert group.rewards["check"] == (0.0,)
    assert (group.prompt, group.prompt_ids) == (prompt, (1, 2, 3))
    assert drafts == {"check": [0.0]}


def test_a_reward_model_reads_the_question_and_not_the_sampled_prompts_ids(tiny_reward_model: Path):
    """With the policy's own tokenizer it takes the completion's ids as sampled, and renders the prompt without goal."""
    from alignment.rendering import load_tokenizer, render
    from infra.scoring import Scorers

    class Recording:
        def scores(self, model: object, sequences: Sequence[Sequence[int]], *, batch_size: int | None = None):
            self.read = [tuple(sequence) for sequence in sequences]
            return [0.5] * len(sequences)

        def log_odds(self, *_: object, **__: object) -> list[float]:
            raise AssertionError("a scalar head was asked for sums")

        sums = log_odds

    numbers, prompt = Recording(), Prompt.of((Message(role="user", content="Say a."),), goal=Goal(text="Score 9."))
    tokenizer = load_tokenizer(tiny_reward_model)
    candidate = Candidate(index=0, text="a", token_ids=(70, 2), finish_reason="stop")
    group = Group(prompt=prompt, prompt_ids=render(tokenizer, prompt), candidates=(candidate,))
    rewards = {"reward": RewardSource(ScalarHead(model=Pretrained(model="r")), {"model": tiny_reward_model})}
    Scorers(numbers, rewards, policy=tiny_reward_model, seed=()).score([group])  # pyright: ignore[reportArgumentType]
    assert numbers.read == [(*render(tokenizer, prompt.at_goal(None)), 70, 2)]


def length(prompt: Prompt, completion: str, times: float) -> float:
    return float("nan") if completion == "broken" else times * len(completion)


def ensemble_of(**changes: object) -> RewardSource:
    """Two members: ten lengths, measured as mean 20 and sd 10, and minus one length, as mean -2 and sd 1."""
    members = {
        name: Verifier(function=f"{__name__}:length", arguments={"times": times})
        for name, times in (("long", 10), ("short", -1))
    }
    standards = {"long": Standard(20, 10), "short": Standard(-2, 1)}
    ensemble = Ensemble.model_validate({"members": members, "standards": standards, **changes})
    return RewardSource(ensemble, members={name: RewardSource(member) for name, member in members.items()})


def scored_together(texts: list[str], **changes: object) -> Group:
    prompt = Prompt.of((Message(role="user", content="Say a."),))
    candidates = tuple(
        Candidate(index=i, text=text, token_ids=(1,), finish_reason="stop") for i, text in enumerate(texts)
    )
    with open_scorers(Engine(), {"reward": ensemble_of(**changes)}) as scorers:
        [group] = scorers.score([Group(prompt=prompt, prompt_ids=(1,), candidates=candidates)])
    return group


def test_an_ensemble_is_made_of_standardised_members():
    """Lengths 2 and 4: the members say 0 and 2, and 0 and -2, so mean 0 throughout, and a bound one sd below."""
    group = scored_together(["ab", "abcd"])
    assert group.rewards == {"reward": (0.0, 0.0), "reward.long": (0.0, 2.0), "reward.short": (0.0, -2.0)}
    assert scored_together(["ab", "abcd"], aggregate="lower_bound").rewards["reward"] == (0.0, -2.0)
    assert scored_together(["ab", "abcd"], aggregate="worst").rewards["reward"] == (0.0, -2.0)


def test_what_a_member_cannot_score_the_ensemble_has_no_reward_for():
    group = scored_together(["ab", "broken"])
    assert group.rewards["reward"] == (0.0, None)
    assert (1, "reward", "reward.short: the score is nan") in [(f.candidate, f.model, f.reason) for f in group.failures]


def test_an_ensemble_that_was_never_measured_scores_nothing():
    with pytest.raises(ValueError, match="has no standards"):
        scored_together(["ab"], standards={})
