"""PRS in a toy language: exact accounting, seeds, what is refined, and what must never win."""

import math
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError
from toy_language import HOW, TURNS, ToyPolicy, ToyScore, best_of, drawn, gold, is_feedback_request, saying, toy_prompts

from alignment.sampling import Greedy, Independent, PreferenceConditioned, Refine, Reflective


class TestBudget:
    @pytest.mark.parametrize("depth", [1, 2, 3, 4])
    def test_exactly_n_completions_are_spent_for_every_n_and_depth(self, depth: int):
        """N not divisible by depth loses nothing: the last layer takes the remainder."""
        prompts = toy_prompts(2)
        for n in range(max(2, depth), 34):
            policy = ToyPolicy()
            answers = drawn(Reflective(n=n, depth=depth, refine=HOW), prompts, policy)
            assert [len(d.candidates) for d in answers] == [n, n]
            assert policy.drawn == 2 * n
            assert sum(is_feedback_request(r.prompt) for r in policy.asked) == 2 * (depth - 1)

    def test_the_remainder_goes_to_the_last_layer(self):
        assert Reflective(n=33, depth=4).widths == (8, 8, 8, 9)
        assert Reflective(n=7, depth=2).widths == (3, 4)
        assert Reflective(n=8, depth=2, split=(1, 7)).widths == (1, 7)

    def test_tokens_count_feedback_and_bound_the_plan(self):
        """Every completion is 24 letters; feedback "Rewrite ... ." is counted beside the sixteen of them."""
        policy = ToyPolicy()
        [one] = drawn(Reflective(n=16, refine=HOW), toy_prompts(1), policy)
        (asked,) = [r for r in policy.asked if is_feedback_request(r.prompt)]
        assert one.tokens == 16 * 24 + len(policy._answer(asked)[0].token_ids)
        assert Reflective(n=16, depth=3).tokens_at_most == 16 * 64 + 2 * 64
        assert Greedy(n=4).tokens_at_most == 4 * 64 + 3 * 64

    def test_several_texts_of_feedback_share_a_layer(self):
        """Nine refinements and two texts of feedback: five with the first, four with the second."""
        [one] = drawn(Reflective(n=17, depth=2, refine=Refine(texts=TURNS, feedbacks=2)), toy_prompts(1))
        assert Counter(c.feedback for c in one.candidates[8:]).most_common(2)[0][1] == 5
        assert len({c.feedback for c in one.candidates[8:]}) == 2

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"n": 1, "depth": 2}, "n = 1 completions in depth = 2 layers"),
            ({"n": 8, "depth": 2, "split": (4, 5)}, "gives 9 completions in 2 layers, but n = 8"),
            ({"n": 8, "depth": 3, "split": (4, 4)}, "in 2 layers, but n = 8 and depth = 3"),
            ({"n": 8, "split": (8, 0)}, "greater than 0"),
            ({"n": 4, "refine": {"feedbacks": 3}}, "refine.feedbacks = 3 for a layer of 2"),
            ({"n": 4, "refine": {"feedbacks": -1}}, "greater than or equal to 0"),
            ({"n": 4, "refine": {"reward_cap": math.nan}}, "finite"),
        ],
    )
    def test_a_budget_that_cannot_be_spent_is_refused(self, fields: dict, said: str):
        with pytest.raises(ValidationError, match=said):
            Reflective(**fields)

    def test_greedy_takes_one_feedback_at_a_time(self):
        with pytest.raises(ValidationError, match="greedy refines one at a time"):
            Greedy(refine=Refine(feedbacks=2))


class TestSeeds:
    def test_one_layer_is_preference_conditioned_sampling_sample_for_sample(self):
        """So are the first layer's drafts of two layers, and Independent's completions."""
        prompts = toy_prompts(5)
        plain = drawn(PreferenceConditioned(n=8), prompts)
        assert drawn(Reflective(n=8, depth=1, refine=HOW), prompts) == plain
        assert drawn(Independent(n=8), prompts) == plain
        tree = drawn(Reflective(n=16, depth=2, refine=HOW), prompts)
        assert [d.candidates[:8] for d in tree] == [d.candidates for d in plain]

    @pytest.mark.parametrize("sampler", [Reflective(n=9, depth=3, refine=HOW), Greedy(n=4, refine=HOW)])
    def test_neither_order_nor_sharding_changes_a_completion(self, sampler):
        prompts = toy_prompts(9)
        whole = drawn(sampler, prompts)
        assert drawn(sampler, prompts[::-1])[::-1] == whole
        assert [d for p in prompts for d in drawn(sampler, [p])] == whole

    def test_the_seed_decides(self):
        """The authors' seed is an argument that nothing reads."""
        prompts, sampler = toy_prompts(3), Reflective(n=8, refine=HOW)
        assert drawn(sampler, prompts) == drawn(sampler, prompts)
        assert drawn(sampler, prompts) != drawn(sampler, prompts, seed=(0, 1))

    def test_no_two_requests_of_a_run_share_a_seed(self):
        policy = ToyPolicy()
        drawn(Reflective(n=17, depth=4, refine=Refine(texts=TURNS, feedbacks=2)), toy_prompts(6), policy)
        seeds = [r.seed for r in policy.asked]
        assert len(set(seeds)) == len(seeds) == 6 * (1 + 3 * (1 + 2))


class TestBest:
    def test_each_layer_refines_the_best_of_all_earlier_ones(self):
        """Of equal rewards the shorter, then the earlier; all are 24 letters long here."""
        sampler = Reflective(n=32, depth=4, refine=HOW)
        for one in drawn(sampler, toy_prompts(20)):
            start = 8
            for width in sampler.widths[1:]:
                rewards = [gold(c.text) for c in one.candidates[:start]]
                assert {c.parent for c in one.candidates[start : start + width]} == {int(np.argmax(rewards))}
                start += width

    def test_the_best_of_all_is_not_the_best_of_the_last_layer(self):
        """Where a refined layer lies below the first, the next one still refines the first one's best. A critic that
        flags what is right makes refinements worse."""
        parents = [
            {c.parent for c in one.candidates[8:]}
            for one in drawn(Reflective(n=12, depth=3, split=(8, 2, 2), refine=HOW), toy_prompts(30), ToyPolicy(0, 1))
        ]
        assert sum(len(p) == 1 for p in parents) > 20
        assert all(p < {*range(8)} for p in parents if len(p) == 1)

    def test_of_equal_rewards_the_shorter_wins_then_the_earlier(self):
        texts = ["long long", "short", "again", "low"]
        rewards = {"long long": 1.0, "short": 1.0, "again": 1.0, "low": 0.0}
        [one] = drawn(
            Reflective(n=6, split=(4, 2), refine=HOW),
            toy_prompts(1),
            saying(texts),
            lambda p, t: [{"reward": [rewards[x] for x in t[0]]}],
        )
        assert {c.parent for c in one.candidates[4:]} == {1}

    def test_a_failed_reward_never_wins(self):
        """All real rewards are near -95: a failure that counts as 0 would be refined in every prompt."""
        prompts = toy_prompts(10)
        first = [d.candidates for d in drawn(PreferenceConditioned(n=8), prompts)]
        fails = frozenset(max((c.text for c in cs), key=gold) for cs in first)
        score = ToyScore(shift=-100.0, fails=fails)
        for one in drawn(Reflective(n=16, refine=HOW), prompts, score=score):
            for candidate in one.candidates[8:]:
                assert candidate.parent is not None
                assert one.candidates[candidate.parent].text not in fails

    @pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
    def test_what_is_no_finite_number_is_no_reward(self, missing):
        texts = ["first", "second"]
        [one] = drawn(
            Reflective(n=4, refine=HOW), toy_prompts(1), saying(texts), lambda p, t: [{"reward": [missing, -5.0]}]
        )
        assert {c.parent for c in one.candidates[2:]} == {1}

    @pytest.mark.parametrize("blank", ["", "  \n"])
    def test_a_blank_completion_is_neither_scored_nor_refined(self, blank):
        seen = []

        def score(prompts, texts):
            seen.extend(texts[0])
            return [{"reward": [-1.0 for _ in texts[0]]}]

        [one] = drawn(Reflective(n=4, refine=HOW), toy_prompts(1), saying([blank, "said"]), score)
        assert seen == ["said"]
        assert {c.parent for c in one.candidates[2:]} == {1}

    def test_a_truncated_completion_is_not_refined_however_good(self):
        """In the authors' script answers cut by the token limit may win."""
        policy = ToyPolicy(truncates=0.5)
        score = lambda prompts, texts: [{"reward": [-float(len(t)) for t in texts_G]} for texts_G in texts]  # noqa: E731
        for one in drawn(Reflective(n=16, refine=HOW), toy_prompts(10), policy, score):
            parents = {c.parent for c in one.candidates} - {None}
            assert all(one.candidates[p].finish_reason == "stop" for p in parents)

    def test_a_cap_that_is_reached_saves_the_rest_of_the_budget_and_says_so(self):
        prompts = toy_prompts(30)
        sampler = Reflective(n=8, refine=Refine(texts=TURNS, reward_cap=5.0))
        for one in drawn(sampler, prompts):
            best = max(gold(c.text) for c in one.candidates[:4])
            assert len(one.candidates) == (4 if best >= 5 else 8)
            assert [f.reason for f in one.failures] == (
                [f"no layer 1: reward {best:g} of {best_of(one.candidates[:4])} reaches the cap 5"] if best >= 5 else []
            )


class TestGreedy:
    def test_every_step_refines_the_best_so_far(self):
        for one in drawn(Greedy(n=12, refine=HOW), toy_prompts(5)):
            golds = [gold(c.text) for c in one.candidates]
            assert [c.parent for c in one.candidates] == [
                None,
                *(int(np.argmax(golds[:i])) for i in range(1, 12)),
            ]

    def test_it_is_prs_with_layers_of_one(self):
        prompts = toy_prompts(3)
        assert drawn(Greedy(n=6, refine=HOW), prompts) == drawn(Reflective(n=6, depth=6, refine=HOW), prompts)
