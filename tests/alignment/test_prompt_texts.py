"""How feedback and refinements are asked for, and what becomes of refinements that speak of it."""

import gzip
import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from toy_language import HOW, TURNS, drawn, saying, toy_prompts

from alignment.rendering import conversation, load_tokenizer, render
from alignment.sampling import Refine, Reflective
from alignment.sampling.meta_text import MetaText
from alignment.sampling.texts import OneTurn, Turns
from alignment.testbed import sandbox
from alignment.testbed.sandbox_grammar import tokens_of
from alignment.testbed.sandbox_refine import ASK_FEEDBACK, ASK_REFINEMENT
from alignment.types import Goal, Message, Prompt
from alignment.worlds import Sandbox

SYSTEM = Message(role="system", content="Be kind.")
ASKED = Prompt.of((SYSTEM, Message(role="user", content="Write {a} note.")), "I prefer verse.")


@pytest.mark.parametrize("placement", ["system", "user"])
@pytest.mark.parametrize("texts", [OneTurn(), Turns()])
def test_a_policy_that_is_served_at_a_goal_is_asked_at_it_for_feedback_and_refinements(texts, placement):
    """A conditioned policy without its goal is undefined. The goal is said once, where drafts are asked with it, and
    is no part of what is quoted."""
    served = ASKED.at_goal(Goal(text="Score 10.", placement=placement))
    place = 0 if placement == "system" else 1
    requests = (
        texts.feedback(served, "D."),
        texts.refinement(served, "D.", "F."),
        texts.refinement(served, "D.", None),
    )
    for request in requests:
        said = [m.content for m in conversation(request)]
        assert said[place].startswith("Score 10.\n\n")
        assert "".join(said).count("Score 10.") == 1


def contents(prompt: Prompt) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in prompt.messages]


class TestTurns:
    def test_a_refinement_continues_the_conversation_as_the_sandbox_demonstrates_it(self):
        """Word for word: the demonstration's turns up to its better answer are the prompt that asks for one."""
        shown = sandbox.refinements(Sandbox(seed=1), 20)
        for demonstration in shown:
            request, draft, ask, said, again, _ = (m.content for m in demonstration.messages)
            text, _, preference = request.partition("\n\n")
            prompt = Prompt.of((Message(role="user", content=text),), preference or None)
            assert TURNS.feedback(prompt, draft).messages == demonstration.messages[:3]
            assert TURNS.refinement(prompt, draft, said).messages == demonstration.messages[:5]
            assert (ask, again) == (ASK_FEEDBACK, ASK_REFINEMENT)

    def test_every_word_of_its_texts_is_in_the_sandbox(self):
        assert set(
            tokens_of(" ".join((TURNS.ask_feedback, TURNS.ask_refinement, TURNS.ask_refinement_unaided)))
        ) <= set(sandbox.vocabulary())

    def test_without_feedback_one_turn_less_is_shown(self):
        assert contents(Turns(ask_refinement_unaided="Again.").refinement(ASKED, "Draft.", None)) == [
            ("system", "Be kind."),
            ("user", "Write {a} note.\n\nI prefer verse."),
            ("assistant", "Draft."),
            ("user", "Again."),
        ]

    def test_it_renders_with_one_bos(self, tiny_tokenizer):
        """The authors' prompts hard-code one beside the tokenizer's own."""
        tokenizer = load_tokenizer(tiny_tokenizer)
        for texts in (Turns(), OneTurn()):
            ids = render(tokenizer, texts.refinement(ASKED, "Draft.", "Rhyme."))
            assert ids.count(tokenizer.bos_token_id) == 1 == ids.index(tokenizer.bos_token_id) + 1


class TestOneTurn:
    def test_everything_is_quoted_in_one_user_turn_and_the_preference_twice(self):
        (system, asked) = OneTurn().refinement(ASKED, "A {draft}.", "Use {rhyme}.").messages
        assert system == SYSTEM
        assert asked.content.count("I prefer verse.") == 2
        for quoted in ("Write {a} note.", "A {draft}.", "Use {rhyme}."):
            assert asked.content.count(quoted) == 1

    def test_a_prompt_without_a_preference_says_so(self):
        plain = Prompt.of(ASKED.messages)
        assert "[Preference]\nNone was stated" in OneTurn().feedback(plain, "Draft.").messages[-1].content

    def test_feedback_and_unaided_requests_hold_no_feedback(self):
        for prompt in (OneTurn().feedback(ASKED, "Draft."), OneTurn().refinement(ASKED, "Draft.", None)):
            assert "{" not in prompt.messages[-1].content.replace("{a}", "")

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"ask_feedback": "Review {draft}"}, r"ask_feedback: \['question'\] must stand in it"),
            ({"ask_refinement": "{question} {draft}"}, r"ask_refinement: \['feedback'\] must stand in it"),
            ({"ask_feedback": "{question} {draft} {score}"}, r"nothing is called \['score'\]"),
            (
                {"ask_refinement_unaided": "{question {draft}"},
                r"ask_refinement_unaided: .*write a brace as \{\{ or \}\}",
            ),
        ],
    )
    def test_a_template_that_cannot_be_filled_is_refused(self, fields, said):
        with pytest.raises(ValidationError, match=said):
            OneTurn(**fields)


class TestMetaText:
    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("Sure, here is the improved answer:\n\nDear Anna.", "Dear Anna."),
            ("Here's a revised version of the letter.\nDear Anna.", "Dear Anna."),
            ("**Revised answer:** Dear Anna.", "Dear Anna."),
            ("Improved response:\nDear Anna.", "Dear Anna."),
            ("Dear Anna. Here is the basket.", "Dear Anna. Here is the basket."),
            ("Certainly not. Dear Anna.", "Certainly not. Dear Anna."),
        ],
    )
    def test_an_opening_is_cut_and_nothing_else(self, text, kept):
        assert MetaText().cleaned(text, "Write to Anna.") == (kept, None)

    @pytest.mark.parametrize(
        ("text", "quoted"),
        [
            ("Dear Anna. As the feedback said, I am brief.", "'the feedback'"),
            ("Dear Anna. Unlike my previous answer, this is short.", "'my previous answer'"),
            ("I hope you like the improved version.", "'improved version'"),
        ],
    )
    def test_a_mention_sets_it_aside_and_is_quoted(self, text, quoted):
        assert MetaText().cleaned(text, "Write to Anna.") == (text, f"it speaks of its task: {quoted}")

    def test_what_the_prompt_itself_speaks_of_may_be_mentioned(self):
        text = "Thank you for the feedback."
        assert MetaText().cleaned(text, "Thank them for the Feedback.") == (text, None)

    def test_an_opening_that_nothing_follows_is_set_aside(self):
        assert MetaText().cleaned("Here is the answer:\n", "x").objection == "nothing follows 'Here is the answer:'"

    def test_the_actions(self):
        text = "Here is the new answer: Yes."
        assert MetaText(action="keep").cleaned(text, "x") == (text, None)
        assert MetaText(action="set_aside").cleaned(text, "x").objection is not None

    def test_a_pattern_that_is_none_is_refused(self):
        with pytest.raises(ValidationError, match="is no regular expression"):
            MetaText(opening="(")

    def test_it_is_handled_before_anything_is_scored(self):
        """Each of the two refinements of layer 1 opens with meta text, which no reward and no group ever sees."""
        scored: list[str] = []

        def score(prompts, texts):
            scored.extend(texts[0])
            return [{"reward": [float(len(t)) for t in texts[0]]}]

        policy = saying(["a", "b"], better="Here is the improved answer:\nlonger")
        [one] = drawn(Reflective(n=6, depth=3, refine=HOW), toy_prompts(1), policy, score)
        assert scored == ["a", "b", "longer", "longer"]
        assert [(c.text, c.token_ids) for c in one.candidates[2:]] == [("longer", ())] * 4

    def test_what_is_set_aside_is_spent_and_told(self):
        """Two drafts and two refinements, both set aside: eight tokens sampled for them, and two for feedback."""
        policy = saying(["a", "b"], better="The feedback was kind.")
        score = lambda p, t: [{"reward": [1.0] * len(t[0])}]  # noqa: E731
        [one] = drawn(Reflective(n=4, refine=Refine(texts=TURNS)), toy_prompts(1), policy, score)
        assert [c.text for c in one.candidates] == ["a", "b"]
        assert one.tokens == 10
        assert [(f.candidate, f.reason) for f in one.failures] == [
            (None, "a refinement is set aside: it speaks of its task: 'The feedback'")
        ] * 2

    def test_drafts_may_say_what_they_like(self):
        policy = saying(["Here is the answer: a", "the feedback"])
        [one] = drawn(Reflective(n=2, depth=1, refine=HOW), toy_prompts(1), policy)
        assert [c.text for c in one.candidates] == ["Here is the answer: a", "the feedback"]

    def test_few_real_answers_are_taken_for_meta_text(self, shared_data: Path):
        """19,320 answers that refine nothing, so whatever is found is a false alarm: of 1.1%, mostly "your feedback" in
        letters that ask for some, and of the openings cut most are none of an answer's content."""
        path = shared_data / "candidates" / "alpaca_eval_v2.24models.jsonl.gz"
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        answers = [(c["output"], row["instruction"]) for row in rows for c in row["candidates"]]
        cleaned = [(text, MetaText().cleaned(text, asked)) for text, asked in answers]
        assert len(cleaned) == 805 * 24
        assert sum(c.objection is not None for _, c in cleaned) == 135
        assert sum(c.objection is None and c.text != text for text, c in cleaned) == 82
        assert all(text.endswith(c.text) and c.text.strip() for text, c in cleaned)
