"""Training from scratch, at tiny size: it learns, it repeats, it loads, and it refuses what does not fit."""

import json

import numpy as np
import pytest

from alignment.errors import UserError
from alignment.models import Architecture, Scratch
from alignment.types import Message, Prompt
from alignment.worlds import Demonstration, LabelledPair
from infra.scratch import batches, train_policy
from infra.scratch_reward import train_reward_model
from infra.tokenizing import byte_level, word_level

TINY = Architecture(hidden=32, layers=1, heads=2, feed_forward=64, context=32)
SOURCE = Scratch(architecture=TINY, examples=60, epochs=20, learning_rate=0.02, batch_tokens=128)
COLOURS = ("red", "green", "blue", "grey")


def silent(step, steps, loss):
    pass


def said(role, content):
    return Message(role=role, content=content)


@pytest.fixture(scope="module")
def tokenizer():
    return word_level([*COLOURS, "say", ".", "please"], context=32)


@pytest.fixture(scope="module")
def demonstrations():
    asked = [COLOURS[i % 4] for i in range(60)]
    return [Demonstration(messages=(said("user", f"say {c}."), said("assistant", f"{c}."))) for c in asked]


@pytest.fixture(scope="module")
def policy(tokenizer, demonstrations, tmp_path_factory):
    out = tmp_path_factory.mktemp("policy")
    losses = []
    train_policy(demonstrations, tokenizer, SOURCE, out, progress=lambda step, steps, loss: losses.append(loss))
    (out / "losses.txt").write_text(json.dumps(losses))
    return out


@pytest.fixture(scope="module")
def pairs():
    """Red is preferred to anything, the rest has no order."""
    prompts = [Prompt.of((said("user", f"say {colour}"),), "please") for colour in COLOURS]
    return [LabelledPair(prompt=prompts[i % 4], chosen="red.", rejected=f"{COLOURS[1 + i % 3]}.") for i in range(60)]


class TestPolicy:
    def test_it_learns_what_is_shown(self, policy):
        losses = json.loads((policy / "losses.txt").read_text())
        assert losses[0] == pytest.approx(np.log(14), abs=0.3)  # 7 special tokens and 7 words, none likelier yet
        assert losses[-1] < 0.6

    def test_it_loads_in_plain_transformers_in_float32_and_untied(self, policy):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(policy)
        assert type(model).__name__ == "LlamaForCausalLM"
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
        assert AutoTokenizer.from_pretrained(policy).decode([8]) == COLOURS[1]
        assert not list(policy.glob("*.bin"))

    def test_the_same_arguments_give_the_same_weights(self, policy, tokenizer, demonstrations, tmp_path):
        train_policy(demonstrations, tokenizer, SOURCE, tmp_path, progress=silent)
        assert (tmp_path / "model.safetensors").read_bytes() == (policy / "model.safetensors").read_bytes()

    def test_only_assistant_turns_are_learnt(self, tokenizer, tmp_path):
        """Both worlds answer "red."; in the second the request's last word is noise, which must cost nothing."""
        rng = np.random.default_rng(0)
        noise = [COLOURS[i] for i in rng.integers(4, size=60)]
        shown = [Demonstration(messages=(said("user", f"say {c}."), said("assistant", "red."))) for c in noise]
        losses = []
        train_policy(shown, tokenizer, SOURCE, tmp_path, progress=lambda s, n, loss: losses.append(loss))
        assert losses[-1] < 0.1  # log(4) / 6 = 0.23 if the request's noise were averaged in

    def test_progress_counts_every_step(self, policy, tokenizer, demonstrations, tmp_path):
        seen = []
        source = SOURCE.model_copy(update={"epochs": 0.5})
        train_policy(demonstrations, tokenizer, source, tmp_path, progress=lambda s, n, loss: seen.append((s, n)))
        assert seen == [(i + 1, len(seen)) for i in range(len(seen))]

    def test_a_conversation_longer_than_the_context_is_refused(self, tokenizer, tmp_path):
        long = Demonstration(messages=(said("user", "say"), said("assistant", "red " * 40)))
        with pytest.raises(UserError, match="demonstration 0 has 45 tokens, the context holds 32"):
            train_policy([long], tokenizer, SOURCE, tmp_path, progress=silent)

    def test_no_demonstration_is_refused(self, tokenizer, tmp_path):
        with pytest.raises(UserError, match="there is no demonstration"):
            train_policy([], tokenizer, SOURCE, tmp_path, progress=silent)


class TestRewardModel:
    def test_it_learns_the_order_and_loads_in_plain_transformers(self, policy, pairs, tmp_path):
        import torch
        from transformers import AutoModelForSequenceClassification

        losses = []
        train_reward_model(pairs, policy, SOURCE, tmp_path, progress=lambda s, n, loss: losses.append(loss))
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
        assert losses[-1] < 0.1
        assert (type(model).__name__, model.config.num_labels) == ("LlamaForSequenceClassification", 1)
        assert {p.dtype for p in model.parameters()} == {torch.float32}

    def test_completions_in_several_pairs_teach_what_the_pairs_teach_apart(self, policy, tmp_path, monkeypatch):
        """Three pairs of three completions, next to each other and torn apart by pairs of another prompt."""
        monkeypatch.setattr("infra.muon.has_bf16_units", lambda: False)
        one, other = (Prompt.of((said("user", f"say {colour}"),)) for colour in COLOURS[:2])
        order = [("red.", f"{COLOURS[1]}."), ("red.", f"{COLOURS[2]}."), (f"{COLOURS[1]}.", f"{COLOURS[2]}.")]
        ones, others = ([LabelledPair(prompt=p, chosen=a, rejected=b) for a, b in order] for p in (one, other))
        torn = [pair for both in zip(ones, others, strict=True) for pair in both]
        one_batch = SOURCE.model_copy(update={"batch_tokens": 10_000, "epochs": 3.0})
        losses = []
        for pairs in ([*ones, *others], torn):
            train_reward_model(pairs, policy, one_batch, tmp_path, progress=lambda s, n, loss: losses.append(loss))
        assert losses[:3] == pytest.approx(losses[3:], abs=1e-4)
        assert losses[2] < losses[0] - 0.01

    def test_a_reward_does_not_depend_on_padding(self, policy, pairs, tokenizer, tmp_path):
        import torch
        from transformers import AutoModelForSequenceClassification

        train_reward_model(pairs, policy, SOURCE, tmp_path, progress=silent)
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
        row = tokenizer.encode("say red.")
        padded = [*row, *[tokenizer.pad_token_id] * 3]
        with torch.no_grad():
            alone, batched = (model(torch.tensor([ids])).logits.item() for ids in (row, padded))
        assert alone == pytest.approx(batched, abs=1e-5)

    def test_an_architecture_unlike_the_policys_is_refused(self, policy, pairs, tmp_path):
        other = SOURCE.model_copy(update={"architecture": TINY.model_copy(update={"layers": 2})})
        with pytest.raises(UserError, match=r"architecture.layers = 2, but the policy it starts from has 1"):
            train_reward_model(pairs, policy, other, tmp_path, progress=silent)


class TestBatches:
    def test_every_row_once_and_within_the_budget(self):
        rng = np.random.default_rng(0)
        lengths = rng.integers(5, 60, size=500).tolist()
        made = batches(lengths, 256, rng)
        assert sorted(row for batch in made for row in batch) == list(range(500))
        assert all(len(batch) * max(lengths[row] for row in batch) <= 256 for batch in made)

    def test_a_row_longer_than_the_budget_goes_alone(self):
        assert sorted(sorted(batch) for batch in batches([3, 50, 3], 8, np.random.default_rng(0))) == [[0, 2], [1]]


class TestTokenizers:
    def test_text_comes_back_from_any_tokens(self, tokenizer):
        """Any sequence of words and marks, sensible or not: decode, encode, the same tokens."""
        rng = np.random.default_rng(0)
        for _ in range(200):
            ids = rng.integers(7, 14, size=int(rng.integers(1, 12))).tolist()
            assert tokenizer.encode(tokenizer.decode(ids)) == ids

    def test_decoded_text_reads_as_written(self, tokenizer):
        assert tokenizer.decode(tokenizer.encode("say red. please say blue.")) == "say red. please say blue."

    def test_a_completion_with_a_leading_space_has_the_same_tokens(self, tokenizer):
        assert tokenizer.encode(" say red.") == tokenizer.encode("say red.")

    def test_the_prompt_is_a_prefix_of_the_conversation_with_one_bos_and_eos_at_the_end(self, tokenizer):
        asked, answer = [{"role": "user", "content": "say\n\nred"}], {"role": "assistant", "content": "red."}
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        whole = tokenizer.apply_chat_template([*asked, answer])["input_ids"]
        assert whole[: len(prompt)] == prompt
        assert whole.count(tokenizer.bos_token_id) == 1
        assert whole[-1] == tokenizer.eos_token_id

    def test_bytes_lose_nothing(self):
        made = byte_level(["the film is good"] * 4, 300, 64)
        text = " Überraschend gut\n \u2013 10/10 \U0001f600"
        assert made.decode(made.encode(text)) == text

    def test_a_vocabulary_without_room_for_all_bytes_is_refused(self):
        with pytest.raises(UserError, match=r"world.vocabulary = 100: byte-level BPE needs at least 259"):
            byte_level(["a"], 100, 64)
