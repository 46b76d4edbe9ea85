"""The arms that refine without reflecting, and the effect of reflection beside policies that cannot reflect."""

import numpy as np
import pytest
from pydantic import ValidationError
from toy_language import (
    HOW,
    TURNS,
    ToyPolicy,
    ToyScore,
    best_of,
    drawn,
    gold,
    is_feedback_request,
    toy_prompts,
)

from alignment.errors import UserError
from alignment.rendering import conversation
from alignment.sampling import Drawn, PreferenceConditioned, Refine, ReflectionControl, Reflective
from alignment.types import Prompt


def selected(drawn_P: list[Drawn], prompts: list[Prompt], score: ToyScore) -> np.ndarray:
    """(P,) gold of each prompt's best by the noisy reward."""
    return np.array(
        [
            gold(max((c.text for c in d.candidates), key=lambda t: score.one(p, t) or 0.0))
            for p, d in zip(prompts, drawn_P, strict=True)
        ]
    )


class TestControls:
    def said(self, replace: str, feedbacks: int = 1) -> tuple[list[Prompt], ToyPolicy, list[Drawn]]:
        prompts, policy = sorted(toy_prompts(4), key=lambda p: p.id), ToyPolicy()
        control = ReflectionControl(replace=replace, n=9, refine=Refine(texts=TURNS, feedbacks=feedbacks))
        return prompts, policy, drawn(control, prompts, policy)

    @pytest.mark.parametrize("replace", ["empty_draft", "foreign_draft", "foreign_feedback"])
    def test_a_control_spends_what_prs_spends_on_the_same_drafts(self, replace):
        prompts, policy, answers = self.said(replace)
        assert [len(d.candidates) for d in answers] == [9] * 4
        assert policy.drawn == 36
        assert sum(is_feedback_request(r.prompt) for r in policy.asked) == 4
        prs = drawn(Reflective(n=9, refine=HOW), prompts)
        assert [d.candidates[:4] for d in answers] == [d.candidates[:4] for d in prs]
        assert all(c.logprob is None for d in answers for c in d.candidates[4:])

    def test_an_empty_draft_is_what_is_refined(self):
        _, policy, answers = self.said("empty_draft", feedbacks=0)
        refined = [r.prompt for r in policy.asked if len(r.prompt.messages) == 3]
        assert {p.messages[1].content for p in refined} == {""}
        assert {c.parent for d in answers for c in d.candidates} == {None}

    def test_a_foreign_draft_is_the_best_of_the_next_prompt_by_id(self):
        prompts, policy, answers = self.said("foreign_draft", feedbacks=0)
        refined = {r.prompt.messages[0].content: r.prompt.messages[1].content for r in policy.asked if r.n == 5}
        for i, prompt in enumerate(prompts):
            other = answers[(i + 1) % 4].candidates[:4]
            assert refined[conversation(prompt)[0].content] == other[best_of(other)].text

    def test_foreign_feedback_is_what_prs_says_of_the_next_prompt_by_id(self):
        prompts, _, answers = self.said("foreign_feedback")
        prs = drawn(Reflective(n=9, refine=HOW), prompts)
        for i, one in enumerate(answers):
            assert {c.feedback for c in one.candidates[4:]} == {prs[(i + 1) % 4].candidates[-1].feedback}
            assert {c.parent for c in one.candidates[4:]} == {best_of(one.candidates[:4])}

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"replace": "empty_draft", "n": 1}, "a control has two layers"),
            ({"replace": "foreign_feedback", "refine": {"feedbacks": 0}}, "there is none"),
            ({"replace": "foreign_draft", "n": 4, "refine": {"feedbacks": 3}}, "for 2 refinements"),
            ({"replace": "empty_draft", "refine": {"reward_cap": 1.0}}, "would stop PRS and not its control"),
        ],
    )
    def test_what_cannot_be_compared_is_refused(self, fields, said):
        with pytest.raises(ValidationError, match=said):
            ReflectionControl(**fields)

    def test_a_single_prompt_has_no_other(self):
        with pytest.raises(UserError, match=r"raise engine\.shard_prompts"):
            drawn(ReflectionControl(replace="foreign_draft", refine=HOW), toy_prompts(1))


class TestEffect:
    """N = 16 = 8 + 8, reward noise 0.5, 400 prompts; gold of what the noisy reward selects, paired by prompt.

    The differences have a standard error of about 0.06. A control is let through within 2 of them (one false alarm
    in twenty per control, were the seed drawn anew); the effect (about 0.9) is eight of them above its bound of 0.5.
    """

    PROMPTS = toy_prompts(400)
    SCORE = ToyScore(noise=0.5)

    def gain(self, policy: ToyPolicy, feedbacks: int = 1) -> tuple[float, float]:
        """Mean difference to preference-conditioned sampling, drawn with another seed, and its standard error."""
        tree = Reflective(n=16, refine=Refine(texts=TURNS, feedbacks=feedbacks))
        prs = selected(drawn(tree, self.PROMPTS, policy, self.SCORE), self.PROMPTS, self.SCORE)
        plain = drawn(PreferenceConditioned(n=16), self.PROMPTS, seed=(1, 1))
        difference = prs - selected(plain, self.PROMPTS, self.SCORE)
        return float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))

    def test_reflection_beats_as_many_independent_completions(self):
        """0.93 in a toy of arrays."""
        mean, _ = self.gain(ToyPolicy())
        assert mean > 0.5

    def test_a_refinement_that_copies_nothing_gains_nothing(self):
        mean, error = self.gain(ToyPolicy(keeps=0.0), feedbacks=0)
        assert abs(mean) < 2 * error

    def test_a_critic_that_flags_everything_gains_nothing(self):
        mean, error = self.gain(ToyPolicy(spots=1.0, misjudges=1.0))
        assert abs(mean) < 2 * error

    def test_a_critic_that_is_wrong_loses(self):
        mean, error = self.gain(ToyPolicy(spots=0.15, misjudges=0.6))
        assert mean < -2.6 * error
