"""Worlds, opened: the sandbox by its seed, sentences from a zip, and an opinion lexicon as a verifier."""

import zipfile

import pytest

from alignment.errors import UserError
from alignment.types import Message, Prompt
from alignment.worlds import Sandbox, Sentences
from infra.worlds import open_world, opinion_lexicon, world_identity

PROMPT = Prompt.of((Message(role="user", content="the film is"),))


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return str(path)


@pytest.fixture
def reviews(tmp_path):
    good = "\n".join(f"a lovely film about the number {i} ." for i in range(60))
    bad = "\n".join(f"a dreary film about the number {i} ." for i in range(60))
    return zipped(tmp_path / "reviews.zip", {"r/README.txt": "x", "r/a.pos": good, "r/a.neg": bad})


class TestSandbox:
    def test_its_tokenizer_gives_its_texts_back(self):
        opened = open_world(Sandbox(seed=1))
        tokenizer = opened.tokenizer(256)
        for pair in opened.labelled_pairs(100):
            assert tokenizer.decode(tokenizer.encode(pair.chosen)) == pair.chosen

    def test_a_share_of_the_demonstrations_refines(self):
        """A quarter of 40: ten conversations of six turns, thirty of two, each kind as without the other."""
        shown = open_world(Sandbox(seed=1, refine_share=0.25)).demonstrations(40)
        assert [len(d.messages) for d in shown] == [2] * 30 + [6] * 10
        assert shown[:30] == open_world(Sandbox(seed=1)).demonstrations(30)
        assert [len(d.messages) for d in open_world(Sandbox(seed=1, refine_share=1)).demonstrations(3)] == [6] * 3

    def test_without_such_a_share_identity_is_what_it_was_before_there_was_one(self):
        assert set(world_identity(Sandbox(seed=1))) == {"type", "seed", "label_noise", "code"}
        assert world_identity(Sandbox(seed=1, refine_share=0.25))["refine_share"] == 0.25

    def test_identity_holds_its_fields_and_its_code(self):
        identity = world_identity(Sandbox(seed=1))
        assert identity["seed"] == 1
        assert len(str(identity["code"])) == 64


class TestSentences:
    def test_prompts_are_first_words_of_sentences_never_trained_on(self, reviews):
        opened = open_world(Sentences(path=reviews, prompt_words=7))
        prompts = opened.prompts(15)
        trained = {d.messages[-1].content for d in opened.demonstrations(80)}
        assert len({p.id for p in prompts}) == 15
        for prompt in prompts:
            sentence = str(prompt.metadata["sentence"])
            assert sentence.startswith(prompt.messages[0].content + " ")
            assert sentence not in trained

    def test_labels_prefer_the_positive_class(self, reviews):
        pairs = open_world(Sentences(path=reviews)).labelled_pairs(50)
        assert all("lovely" in p.chosen and "dreary" in p.rejected for p in pairs)

    def test_a_prompt_and_its_continuation_tokenise_as_the_sentence(self, reviews):
        opened = open_world(Sentences(path=reviews, vocabulary=300))
        tokenizer = opened.tokenizer(64)
        prompt = opened.prompts(1)[0]
        sentence = str(prompt.metadata["sentence"])
        head = tokenizer.apply_chat_template([prompt.messages[0].model_dump()], add_generation_prompt=True)["input_ids"]
        rest = sentence.removeprefix(prompt.messages[0].content)
        whole = tokenizer.apply_chat_template(
            [prompt.messages[0].model_dump(), {"role": "assistant", "content": rest}]
        )["input_ids"]
        assert whole[: len(head)] == head
        assert tokenizer.decode(whole, skip_special_tokens=True) == sentence

    def test_stray_controls_read_as_the_punctuation_they_were(self, tmp_path):
        """U+0091 and U+0096 are cp1252's left quote and en dash."""
        path = zipped(tmp_path / "c.zip", {"a.pos": "so \x91good\x92 \x96 yes\n" * 3, "a.neg": "no\nnot\nnever\nbad"})
        texts = {p.chosen for p in open_world(Sentences(path=path)).labelled_pairs(5)}
        assert texts == {"so \u2018good\u2019 \u2013 yes"}

    def test_identity_is_the_file_and_not_its_place(self, reviews, tmp_path):
        elsewhere = tmp_path / "elsewhere.zip"
        elsewhere.write_bytes((tmp_path / "reviews.zip").read_bytes())
        assert world_identity(Sentences(path=reviews)) == world_identity(Sentences(path=str(elsewhere)))
        assert world_identity(Sentences(path=reviews)) != world_identity(Sentences(path=reviews, prompt_words=2))


class TestRefused:
    def test_absent_file(self):
        with pytest.raises(UserError, match=r"gone.zip: no such file"):
            open_world(Sentences(path="gone.zip"))

    def test_not_a_zip(self, tmp_path):
        (tmp_path / "x.zip").write_text("no")
        with pytest.raises(UserError, match="not a zip file"):
            open_world(Sentences(path=str(tmp_path / "x.zip")))

    def test_members_that_do_not_match(self, reviews):
        with pytest.raises(UserError, match=r"0 members match '\*.good'"):
            open_world(Sentences(path=reviews, positive="*.good"))

    def test_not_utf8(self, tmp_path):
        with pytest.raises(UserError, match="not UTF-8 at byte 3"):
            open_world(Sentences(path=zipped(tmp_path / "l.zip", {"a.pos": b"caf\xe9", "a.neg": b"no"})))

    def test_more_than_there_is(self, reviews):
        opened = open_world(Sentences(path=reviews))
        with pytest.raises(UserError, match=r"policy.examples = 1000, but .* has \d+ sentences"):
            opened.demonstrations(1000)
        with pytest.raises(UserError, match=r"prompts.count = 1000, but .* gives \d+ distinct prompts"):
            opened.prompts(1000)


class TestOpinionLexicon:
    @pytest.fixture
    def lexicon(self, tmp_path):
        members = {"l/positive-words.txt": ";note\n\ngood\nfine\n", "l/negative-words.txt": ";note\nbad\n"}
        return zipped(tmp_path / "lexicon.zip", members)

    def test_it_is_the_balance_of_words(self, lexicon):
        """Two positive, one negative, five words: 1/5."""
        assert opinion_lexicon(PROMPT, " Good , fine bad .", path=lexicon) == pytest.approx(1 / 5)

    def test_no_words_score_nought(self, lexicon):
        assert opinion_lexicon(PROMPT, "  ", path=lexicon) == 0.0

    def test_on_real_reviews_it_tells_the_classes_apart(self, shared_data):
        path = str(shared_data / "corpora" / "opinion_lexicon.zip")
        world = Sentences(path=str(shared_data / "corpora" / "sentence_polarity.zip"))
        pairs = open_world(world).labelled_pairs(500)
        score = [
            opinion_lexicon(PROMPT, p.chosen, path=path) - opinion_lexicon(PROMPT, p.rejected, path=path) for p in pairs
        ]
        assert sum(score) / len(score) > 0.03
