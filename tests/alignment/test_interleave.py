"""Prompts that do not wait for each other."""

import threading

import pytest
from toy_language import HOW, ToyPolicy, ToyScore, drawn, toy_prompts

from alignment.sampling import Decoding, Reflective, Request
from alignment.sampling.interleave import draw, interleave, rate
from alignment.types import Candidate, Prompt


def test_a_prompt_is_refined_while_another_is_still_being_scored():
    """The second prompt's score waits until the first one's refinement was drawn: with a barrier it would wait for
    ever, so the wait ends after ten seconds and says so."""
    first, second = toy_prompts(2)
    refined, waited = threading.Event(), []
    policy = ToyPolicy()

    def generate(requests):
        answers = policy(requests)
        if any(len(r.prompt.messages) == 5 and "toy 0" in r.prompt.messages[0].content for r in requests):
            refined.set()
        return answers

    def score(prompts, texts):
        if second in prompts:
            waited.append(refined.wait(10))
        return ToyScore()(prompts, texts)

    answers = drawn(Reflective(n=8, refine=HOW), [first, second], generate, score)
    assert waited == [True]
    assert answers == drawn(Reflective(n=8, refine=HOW), [first, second])


def test_answers_reach_whom_they_are_for_whatever_is_ready_first():
    """200 growths that draw and rate in an order of their own; each gets its own prompt's answers."""

    def growth(prompt: Prompt, steps: int):
        got = []
        for step in range(steps):
            drawn_one = yield from draw(Request(prompt=prompt, n=1, seed=step, decoding=Decoding()))
            got += [drawn_one[0].text, *(yield from rate(prompt, [f"{prompt.id} {step}"]))]
        return got

    def generate(requests):
        return [
            [Candidate(index=0, text=f"{r.prompt.id} {r.seed}", token_ids=(1,), finish_reason="stop")] for r in requests
        ]

    def score(prompts, texts):
        return [{"reward": [len(p.id) + float(t.split()[1]) for t in g]} for p, g in zip(prompts, texts, strict=True)]

    prompts = toy_prompts(200)
    answers = interleave([growth(p, i % 5) for i, p in enumerate(prompts)], generate, score)
    for i, (p, got) in enumerate(zip(prompts, answers, strict=True)):
        assert got == [x for step in range(i % 5) for x in (f"{p.id} {step}", 32.0 + step)]


def test_no_prompts_draw_nothing():
    assert drawn(Reflective(refine=HOW), []) == []


def test_an_engine_error_ends_it():
    def broken(requests):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        drawn(Reflective(refine=HOW), toy_prompts(3), broken)


def test_too_few_completions_are_an_error_and_not_a_smaller_budget():
    with pytest.raises(ValueError, match="7 completions for a request of 8"):
        drawn(Reflective(n=16, refine=HOW), toy_prompts(1), lambda requests: [ToyPolicy()(requests)[0][:7]])


def test_scores_without_the_reward_are_an_error():
    with pytest.raises(ValueError, match="no reward model is named 'reward', there are gold"):
        drawn(Reflective(refine=HOW), toy_prompts(1), score=lambda p, t: [{"gold": [1.0] * len(t[0])}])
