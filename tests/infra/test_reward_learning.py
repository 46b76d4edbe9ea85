"""Reward models trained on labelled pairs, at 45,000 weights: what they learn, say of it, and refuse."""

from pathlib import Path

import pytest
from labelled_questions import question, thanks

from alignment.errors import UserError
from alignment.models import Trained
from alignment.splits import split_held_out
from infra.model_actor import ModelActor
from infra.reward_learning import learn
from infra.reward_objectives import save, scalar_head
from infra.vocabulary import tokenizer_digest

HOW = Trained(pairs="a file", epochs=6, learning_rate=3e-3, batch_tokens=2048)
STILL = HOW.model_copy(update={"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1})


def silent(step: int, steps: int, loss: float) -> None:
    pass


def test_it_learns_the_order_and_says_how_well_on_prompts_it_never_saw(tiny_policy: Path, tmp_path: Path):
    questions, losses = thanks(tiny_policy, 60), []
    objective = scalar_head(tiny_policy, "cpu")
    facts = learn(objective, questions, HOW, skip_bad_rows=False, progress=lambda s, n, loss: losses.append(loss))
    kept, held_out = split_held_out([q.group.prompt for q in questions], 0.2)
    assert (facts["pairs"], facts["held_out_pairs"], facts["held_out_prompts"]) == (
        2 * len(kept), 2 * len(held_out), len(held_out),
    )  # fmt: skip
    assert losses[-1] < 0.2 < losses[0]
    assert facts["ranking_accuracy"] > 0.9
    assert facts["ranking_accuracy_low"] <= facts["ranking_accuracy"] <= facts["ranking_accuracy_high"]


def test_what_is_saved_scores_as_it_was_measured_and_keeps_the_tokenizer(tiny_policy: Path, tmp_path: Path):
    """Held-out accuracy, by hand, from the scores that the training stack gives the saved folder."""
    questions = thanks(tiny_policy, 40)
    objective = scalar_head(tiny_policy, "cpu")
    short = HOW.model_copy(update={"epochs": 0.5})
    facts = learn(objective, questions, short, skip_bad_rows=False, progress=silent)
    save(objective, tiny_policy, tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir() if "model" in path.name) == [".safetensors"]
    assert tokenizer_digest(tmp_path) == tokenizer_digest(tiny_policy)
    _, held_out = split_held_out([q.group.prompt for q in questions], 0.2)
    right = []
    for q in (q for q in questions if q.group.prompt in held_out):
        ids = [(*q.group.prompt_ids, *c.token_ids) for c in q.group.candidates]
        first, *others = ModelActor(threads=1, gpu=False).scores(tmp_path, ids, batch_size=8)
        right += [first > other for other in others]
    assert facts["ranking_accuracy"] == pytest.approx(sum(right) / len(right))


def test_a_reward_model_that_exists_goes_on_from_its_own_head(tiny_reward_model: Path, tmp_path: Path):
    questions = thanks(tiny_reward_model, 12)
    ids = [[*questions[0].group.prompt_ids, *c.token_ids] for c in questions[0].group.candidates]
    objective = scalar_head(tiny_reward_model, "cpu")
    learn(objective, questions, STILL, skip_bad_rows=False, progress=silent)
    save(objective, tiny_reward_model, tmp_path)
    before, after = (
        ModelActor(threads=1, gpu=False).scores(of, ids, batch_size=8) for of in (tiny_reward_model, tmp_path)
    )
    assert after == pytest.approx(before, abs=1e-6)


def test_a_pair_beyond_the_context_is_refused_or_dropped_with_its_numbers(tiny_policy: Path):
    long = question(tiny_policy, 99, ("Thank you. " * 40, "No."))
    objective, questions = scalar_head(tiny_policy, "cpu"), [*thanks(tiny_policy, 12), long]
    with pytest.raises(UserError, match=r"tokens exceed the reward model's context of 128; 1 of 25 pairs cannot be"):
        learn(objective, questions, STILL, skip_bad_rows=False, progress=silent)
    facts = learn(objective, questions, STILL, skip_bad_rows=True, progress=silent)
    assert [d["item"] for d in facts["dropped"]] == [f"{long.group.prompt.id}:0,1"]
    assert facts["pairs"] + facts["held_out_pairs"] == 24


def test_a_label_of_one_half_is_learnt_from_and_decides_no_accuracy(tiny_policy: Path):
    questions = [
        q._replace(pairs=tuple(pair.model_copy(update={"p": 0.5}) for pair in q.pairs)) for q in thanks(tiny_policy, 12)
    ]
    facts = learn(scalar_head(tiny_policy, "cpu"), questions, STILL, skip_bad_rows=False, progress=silent)
    assert facts["pairs"] > 0
    assert (facts["held_out_pairs"], facts["ranking_accuracy"], facts["ranking_accuracy_low"]) == (0, None, None)


def test_prompts_that_leave_none_to_hold_out_are_refused(tiny_policy: Path):
    with pytest.raises(UserError, match=r"the reward model's held_out = 0\.2 leave none to"):
        learn(scalar_head(tiny_policy, "cpu"), thanks(tiny_policy, 1), STILL, skip_bad_rows=False, progress=silent)


def test_a_classifier_of_several_classes_is_no_start(tiny_reward_model: Path, tmp_path: Path):
    import shutil

    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig.from_pretrained(tiny_reward_model, num_labels=3)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    shutil.copyfile(tiny_reward_model / "tokenizer.json", tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="tells 3 classes apart, a reward model has one output"):
        scalar_head(tmp_path, "cpu")


def test_weights_of_the_body_that_are_missing_are_not_made_up(tiny_policy: Path, tmp_path: Path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_policy, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"its weights lack model\.layers\.1\.mlp\.up_proj\.weight"):
        scalar_head(folder, "cpu")
