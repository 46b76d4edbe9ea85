"""What a growing tree stores, and what it falls back to, told per completion."""

import gzip
import json
from collections import Counter
from pathlib import Path

from toy_language import HOW, TURNS, ToyPolicy, ToyScore, drawn, saying, toy_prompts

from alignment.rendering import conversation
from alignment.sampling import Drawn, Independent, Refine, Reflective, generations
from alignment.sampling.growing import NO_BEST, NO_DRAFT_FITS, NO_FEEDBACK_ASKED, NO_FEEDBACK_FITS, NO_FEEDBACK_GIVEN
from alignment.sampling.meta_text import MetaText
from alignment.types import Candidate, Goal, Group, Message, Prompt


class TestWhatIsStored:
    def test_refinements_are_completions_of_the_original_prompt_without_a_logprob(self):
        prompts = toy_prompts(4)
        for one in drawn(Reflective(n=12, depth=3, refine=HOW), prompts):
            assert [c.index for c in one.candidates] == list(range(12))
            for c in one.candidates:
                assert (c.parent is None) == (c.feedback is None) == (c.logprob is not None) == (c.index < 4)

    def test_the_reward_reads_the_original_prompt_with_its_preference(self):
        """Neither the draft nor the feedback; the authors' common preference never reaches their reward model."""
        prompts, score = toy_prompts(4), ToyScore()
        drawn(Reflective(n=12, depth=3, refine=HOW), prompts, score=score)
        assert {p.id for p, _ in score.seen} == {p.id for p in prompts}
        assert all(p in prompts and p.preference for p, _ in score.seen)

    def test_the_policy_sees_the_preference_in_every_request(self):
        policy = ToyPolicy()
        prompts = toy_prompts(3)
        drawn(Reflective(n=8, refine=HOW), prompts, policy)
        assert all("I prefer g." in conversation(r.prompt)[0].content for r in policy.asked)

    def test_a_withheld_preference_is_seen_by_no_request(self):
        """Its completions have no logprob: that was of another prompt."""
        policy, prompts = ToyPolicy(), toy_prompts(3)
        answers = drawn(Independent(n=4, withhold_preference=True), prompts, policy)
        assert not any("prefer" in conversation(r.prompt)[0].content for r in policy.asked)
        assert {c.logprob for d in answers for c in d.candidates} == {None}
        plain = toy_prompts(3, preference=None)
        assert {c.logprob for d in drawn(Independent(n=4, withhold_preference=True), plain) for c in d.candidates} == {
            -24.0
        }

    def test_a_goal_is_seen_where_the_preference_is_withheld(self):
        """Without its goal, what a conditioned policy answers is undefined."""
        policy, goal = ToyPolicy(), Goal(text="Score 7.", placement="user")
        (prompt,) = toy_prompts(1)
        drawn(Independent(n=1, withhold_preference=True), [prompt.at_goal(goal)], policy)
        assert [r.prompt.goal for r in policy.asked] == [goal]
        assert [r.prompt.preference for r in policy.asked] == [None]

    def test_the_sampler_leaves_nothing_behind_for_its_next_call(self):
        """The authors' driver overwrites a variable in one mode that the next one reads."""
        prompts = toy_prompts(3)
        with_feedback, without = (Reflective(n=8, refine=Refine(texts=TURNS, feedbacks=f)) for f in (1, 0))
        before = drawn(without, prompts)
        drawn(with_feedback, prompts)
        assert drawn(without, prompts) == before
        assert all(c.feedback is None for d in before for c in d.candidates)

    def test_generations_count_drafts_refinements_and_copies(self):
        """Two drafts alike; of three refinements of the first, one is a copy and two are alike."""
        made = [("a", None), ("a", None), ("a", 0), ("b", 0), ("b", 0), ("c", 3)]
        candidates = tuple(
            Candidate(index=i, text=t, token_ids=(1,), finish_reason="stop", parent=p) for i, (t, p) in enumerate(made)
        )
        group = Group(prompt=toy_prompts(1)[0], prompt_ids=(), candidates=candidates)
        assert generations([group]) == [(2, 1, 0), (3, 2, 1), (1, 1, 0)]
        assert generations([]) == []


def test_of_real_answers_the_best_so_far_is_refined(shared_data: Path):
    """805 prompts, the answers of 24 models in three layers of eight, and their real preferences as the reward. In
    728 prompts no answer of the second layer is above the best of the first: there the third refines a draft."""
    path = shared_data / "candidates" / "alpaca_eval_v2.24models.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    prompts = [Prompt.of((Message(role="user", content=row["instruction"]),)) for row in rows]
    texts = {row["instruction"]: [c["output"] for c in row["candidates"]] for row in rows}
    reward = {(row["instruction"], c["output"]): c["preference"] for row in rows for c in row["candidates"]}
    unaided = Refine(texts=TURNS, feedbacks=0, meta_text=MetaText(action="keep"))
    answered: Counter[str] = Counter()

    def generate(requests):
        drawn_P = []
        for r in requests:
            asked = r.prompt.messages[0].content
            since = answered[asked]
            answered[asked] += r.n
            drawn_P.append(
                [
                    Candidate(index=i, text=text, token_ids=(1,), finish_reason="stop")
                    for i, text in enumerate(texts[asked][since : since + r.n])
                ]
            )
        return drawn_P

    def score(prompts, texts_P):
        asked = [p.messages[0].content for p in prompts]
        return [{"reward": [reward[a, t] for t in texts_G]} for a, texts_G in zip(asked, texts_P, strict=True)]

    stayed = 0
    for row, one in zip(rows, drawn(Reflective(n=24, depth=3, refine=unaided), prompts, generate, score), strict=True):
        rewards = [reward[row["instruction"], c.text] for c in one.candidates]
        assert [c.text for c in one.candidates] == [c["output"] for c in row["candidates"]]
        for start in (8, 16):
            (parent,) = {c.parent for c in one.candidates[start : start + 8]}
            assert parent is not None
            assert rewards[parent] == max(rewards[:start])
        stayed += parent < 8
    assert stayed == 728


class TestFallbacks:
    """Characters stand for tokens: a request is 5 of prompt and 13 of preference, a draft 24, the questions 24, 34
    and 15."""

    def reasons(self, context: int) -> list[str]:
        [one] = drawn(Reflective(n=8, refine=HOW), toy_prompts(1), ToyPolicy(context=context))
        assert len(one.candidates) == 8
        assert sorted(f.candidate for f in one.failures) == ([4, 5, 6, 7] if one.failures else [])
        return sorted({f.reason for f in one.failures})

    def test_all_fits(self):
        assert self.reasons(10_000) == []

    def test_draft_and_feedback_do_not_fit_together(self):
        """The request for feedback takes 6 + 13 + 24 + 24 = 67, that for a refinement 34 more and the feedback."""
        assert self.reasons(80) == [NO_FEEDBACK_FITS]

    def test_the_request_for_feedback_does_not_fit(self):
        """Unaided refinement takes 19 + 24 + 15 = 58, the request for feedback 67."""
        assert self.reasons(60) == [NO_FEEDBACK_ASKED]

    def test_not_even_the_draft_fits(self):
        assert self.reasons(40) == [NO_DRAFT_FITS]

    def test_nothing_fits(self):
        [one] = drawn(Reflective(n=8, refine=HOW), toy_prompts(1), ToyPolicy(context=4))
        assert one == Drawn(())

    def test_fallbacks_are_drawn_under_the_prompt_itself_with_seeds_of_their_own(self):
        [one] = drawn(Reflective(n=8, refine=HOW), toy_prompts(1), ToyPolicy(context=40))
        assert all(c.parent is None and c.feedback is None and c.logprob == -24.0 for c in one.candidates)
        assert len({c.text for c in one.candidates}) == 8

    def test_blank_feedback_is_none(self):
        [one] = drawn(
            Reflective(n=4, refine=HOW),
            toy_prompts(1),
            saying(["a", "b"], feedback=" "),
            lambda p, t: [{"reward": [1.0] * len(t[0])}],
        )
        assert [(f.candidate, f.reason) for f in one.failures] == [(2, NO_FEEDBACK_GIVEN), (3, NO_FEEDBACK_GIVEN)]
        assert all(c.feedback is None and c.parent == 0 for c in one.candidates[2:])

    def test_a_prompt_without_any_reward_keeps_its_drafts_and_draws_more(self):
        """The authors' merge drops a prompt that is absent from either layer's file."""
        prompts = toy_prompts(3)
        answers = drawn(
            Reflective(n=8, refine=HOW), prompts, score=lambda p, t: [{"reward": [None] * len(g)} for g in t]
        )
        assert [len(d.candidates) for d in answers] == [8, 8, 8]
        assert {f.reason for d in answers for f in d.failures} == {NO_BEST}
        assert [len({c.text for c in d.candidates}) for d in answers] == [8, 8, 8]  # no draft is drawn again
        assert all(c.logprob is not None for d in answers for c in d.candidates)
