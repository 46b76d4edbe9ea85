"""The sandbox world: readable, reproducible, and graded by a gold reward that can be worked out by hand."""

import re

import numpy as np
import pytest

from alignment.rewards import Verifier
from alignment.testbed import sandbox
from alignment.testbed.sandbox_gold import gold, gold_attributes
from alignment.testbed.sandbox_grammar import (
    KEYWORDS,
    WISHES,
    Answer,
    Brief,
    grammar_texts,
    is_sentence,
    read,
    tokens_of,
)
from alignment.testbed.sandbox_refine import FINE, faults, feedback, refine
from alignment.testbed.sandbox_writer import honour, joined, slip, write
from alignment.types import Message, Prompt
from alignment.worlds import Sandbox

WORLD = Sandbox(seed=3)


def asked(wish: str | None = None) -> Prompt:
    brief = Brief(name="Noah", event="picnic", keywords=("basket", "mill"), wish=wish)
    return Prompt.of((Message(role="user", content="Write a note."),), wish, brief.model_dump(mode="json"))


GOOD = "Hello Noah. I look forward to the picnic. You will find the basket at the mill. Take care."


class TestGold:
    def test_an_answer_with_everything_is_worth_ten(self):
        assert gold(asked(), GOOD) == 10.0

    def test_an_empty_answer_is_worth_nothing(self):
        assert gold(asked(), "") == 0.0
        assert gold(asked("no_greeting"), "") == 0.0

    def test_one_of_two_keywords_costs_half_of_content(self):
        """Without a wish the weights sum to 3+1.5+1+1+2+1+1.5+0.5 = 11.5; content at 1/2 loses 1.5."""
        text = GOOD.replace("You will find the basket at the mill.", "Please bring the basket.")
        assert gold(asked(), text) == pytest.approx(10 * 10 / 11.5)

    def test_an_unasked_keyword_makes_a_third_of_the_mentions_off_topic(self):
        """On topic 2/3 loses 1/3 of weight 1.5: 10 * (11.5 - 0.5) / 11.5."""
        text = GOOD.replace("Take care.", "Please bring the rope. Take care.")
        assert gold_attributes(asked(), text)["on_topic"] == pytest.approx(2 / 3)
        assert gold(asked(), text) == pytest.approx(10 * 11 / 11.5)

    def test_repetition_costs_a_half_each_and_no_more_than_all(self):
        once = "Hello Noah. Please bring the basket. Please bring the basket."
        assert gold_attributes(asked(), once)["no_repetition"] == 0.0  # the sentence and the keyword
        assert gold_attributes(asked(), "I am here. Many mills. I am here.")["no_repetition"] == 0.5

    def test_a_malformed_part_counts_against_all_parts(self):
        """Greeting, two sentences and closing; one sentence lost a word."""
        text = GOOD.replace("I look forward to the picnic", "I forward to the picnic")
        assert gold_attributes(asked(), text)["well_formed"] == 0.75

    def test_wrong_name_and_event_earn_nothing(self):
        wrong = gold_attributes(asked(), "Hello Olga. I look forward to the parade. Take care.")
        assert (wrong["name"], wrong["event"]) == (0.0, 0.0)

    def test_length_is_a_band(self):
        """Two keywords: from 8 words to 14 + 2 * 5 = 24, and nothing from 48 on."""
        assert gold_attributes(asked(), "Hello Noah.")["length"] == 2 / 8
        assert gold_attributes(asked(), " ".join(["word"] * 36))["length"] == 0.5
        assert gold_attributes(asked(), " ".join(["word"] * 48))["length"] == 0.0

    def test_attributes_lie_between_nought_and_one_whatever_the_text(self):
        rng = np.random.default_rng(0)
        words = [*sandbox.vocabulary(), "<unk>", "::", "?!"]
        for prompt in sandbox.prompts(WORLD, 200):
            text = " ".join(words[i] for i in rng.integers(len(words), size=int(rng.integers(40))))
            assert all(0 <= value <= 1 for value in gold_attributes(prompt, text).values())

    @pytest.mark.parametrize("wish", sorted(WISHES))
    def test_a_careful_writer_meets_every_wish(self, wish):
        rng = np.random.default_rng(1)
        met = [
            gold_attributes(asked(wish), write(rng, Brief.of(asked(wish)), 1.0).text)["preference"] for _ in range(50)
        ]
        assert np.mean(met) > 0.95

    @pytest.mark.parametrize("wish", sorted(set(WISHES) - {"three", "brief"}))
    def test_an_answer_that_ignores_the_wish_does_not_meet_it(self, wish):
        text = "Hello Noah. Please bring the basket. Take care."
        assert gold_attributes(asked(wish), text)["preference"] <= 1 / 3

    def test_a_prompt_of_another_source_is_refused(self):
        with pytest.raises(ValueError, match="keywords"):
            gold(Prompt.of((Message(role="user", content="Hello"),)), GOOD)

    def test_it_is_reachable_as_a_verifier_function(self):
        assert Verifier(function="alignment.testbed.sandbox:gold").function == "alignment.testbed.sandbox:gold"
        assert sandbox.gold is gold


class TestGrammar:
    def test_every_body_sentence_is_recognised_with_words_in_its_slots(self):
        assert is_sentence("You will find the basket at the mill.")
        assert not is_sentence("You will find the mill at the basket.")

    def test_slot_words_never_occur_in_fixed_text(self):
        fixed = {token for text in grammar_texts() for token in tokens_of(re.sub(r"{\w+}", "", text))}
        assert not fixed & set(KEYWORDS)

    def test_reading_finds_greeting_body_and_closing(self):
        parts = read("Dear Noah: It will be fun. Kind regards.")
        assert parts == Answer("Dear Noah:", ("It will be fun.",), "Kind regards.")
        assert parts.text == "Dear Noah: It will be fun. Kind regards."

    def test_whatever_is_written_can_be_read_back(self):
        rng = np.random.default_rng(2)
        for prompt in sandbox.prompts(WORLD, 100):
            answer = write(rng, Brief.of(prompt), 0.5)
            assert read(answer.text) == answer

    def test_text_of_tokens_is_the_text(self):
        assert joined(tokens_of(GOOD)) == GOOD

    def test_the_vocabulary_covers_all_that_is_written(self):
        known = set(sandbox.vocabulary())
        texts = [m.content for d in sandbox.refinements(WORLD, 300) for m in d.messages]
        texts += [t for pair in sandbox.labelled_pairs(WORLD, 300) for t in (pair.chosen, pair.rejected)]
        assert not {token for text in texts for token in tokens_of(text)} - known


class TestLists:
    def test_prompts_are_distinct_and_a_longer_list_begins_with_the_shorter(self):
        prompts = sandbox.prompts(WORLD, 400)
        assert len({p.id for p in prompts}) == 400
        assert sandbox.prompts(WORLD, 50) == prompts[:50]

    @pytest.mark.parametrize(
        "make", [sandbox.prompts, sandbox.demonstrations, sandbox.refinements, sandbox.labelled_pairs]
    )
    def test_the_seed_decides(self, make):
        assert make(WORLD, 20) == make(WORLD, 20)
        assert make(WORLD, 20) != make(Sandbox(seed=4), 20)

    def test_most_prompts_state_a_preference_that_their_metadata_names(self):
        prompts = sandbox.prompts(WORLD, 400)
        stating = [p for p in prompts if p.preference]
        assert 0.5 < len(stating) / 400 < 0.7
        assert all(p.preference in WISHES[str(p.metadata["wish"])] for p in stating)

    def test_demonstrations_carry_the_preference_in_the_request(self):
        turns = [d.messages[0].content for d in sandbox.demonstrations(WORLD, 100)]
        assert any("\n\n" in turn for turn in turns)

    def test_labels_follow_gold_but_not_always(self):
        pairs = sandbox.labelled_pairs(WORLD, 800)
        agreed = np.mean([gold(p.prompt, p.chosen) > gold(p.prompt, p.rejected) for p in pairs])
        assert 0.75 < agreed < 0.95
        assert all(p.chosen != p.rejected for p in pairs)

    def test_every_two_different_completions_are_compared_once(self):
        """Of a, b, a, c: six couples less the one of equal texts."""
        [prompt] = sandbox.label_prompts(WORLD, 1)
        pairs = sandbox.compared(WORLD, prompt, ["a", "b", "a", "c"])
        assert sorted("".join(sorted((p.chosen, p.rejected))) for p in pairs) == ["ab", "ab", "ac", "ac", "bc"]
        assert pairs == sandbox.compared(WORLD, prompt, ["a", "b", "a", "c"])

    def test_label_prompts_are_none_of_the_prompts(self):
        seen = {p.id for p in sandbox.prompts(WORLD, 1000)}
        assert not seen & {p.id for p in sandbox.label_prompts(WORLD, 1000)}

    def test_less_noise_means_fewer_wrong_labels(self):
        sharp = sandbox.labelled_pairs(Sandbox(seed=3, label_noise=0.01), 400)
        wrong = np.mean([gold(p.prompt, p.chosen) < gold(p.prompt, p.rejected) for p in sharp])
        assert wrong < 0.01


class TestRefining:
    def test_a_fault_that_is_not_named_stays(self):
        """The draft has a wrong name and misses the mill; only the mill is named, so only the mill is mended."""
        draft = read("Hello Olga. I look forward to the picnic. Please bring the basket. Take care.")
        better = refine(np.random.default_rng(0), Brief.of(asked()), draft, ["mill"])
        assert better.greeting == "Hello Olga."
        assert better.body[:2] == draft.body
        assert "mill" in better.body[2]

    def test_no_fault_named_changes_nothing(self):
        draft = read(GOOD)
        assert feedback(Brief.of(asked()), []) == FINE
        assert refine(np.random.default_rng(0), Brief.of(asked()), draft, []) == draft

    def test_the_reviewer_is_imperfect(self):
        """It misses a wrong name always, a missing keyword at times, and takes any question for a closing one."""
        rng = np.random.default_rng(0)
        wrong_name = read(GOOD.replace("Noah", "Olga"))
        assert faults(rng, Brief.of(asked()), wrong_name) == []
        missing = read("Hello Noah. I look forward to the picnic. Take care.")
        named = [faults(rng, Brief.of(asked()), missing) for _ in range(400)]
        assert 0.8 < np.mean([n == ["basket"] for n in named]) < 0.9
        early = read("Hello Noah. Can you come? The picnic is almost here. You will find the basket at the mill.")
        assert faults(rng, Brief.of(asked("question")), early) == []

    def test_a_bad_draft_gives_a_bad_refinement(self):
        """Lengths follow: what a draft lacks and the reviewer does not name stays lacking."""
        drafts, refined = [], []
        for d in sandbox.refinements(WORLD, 600):
            drafts.append(len(tokens_of(d.messages[1].content)))
            refined.append(len(tokens_of(d.messages[5].content)))
        assert np.corrcoef(drafts, refined)[0, 1] > 0.5


class TestWriting:
    def test_care_decides_the_quality(self):
        rng = np.random.default_rng(5)
        prompts = sandbox.prompts(WORLD, 200)
        means = [np.mean([gold(p, write(rng, Brief.of(p), care).text) for p in prompts]) for care in (0.0, 0.5, 1.0)]
        assert means[0] + 1 < means[1] < means[2] - 0.5
        assert means[2] > 9.5

    def test_honouring_no_wish_changes_nothing(self):
        draft = read(GOOD)
        assert honour(np.random.default_rng(0), draft, Brief.of(asked())) == draft

    def test_slips_of_an_empty_text_leave_it_empty(self):
        assert slip(np.random.default_rng(0), "", 3) == ""
