"""Weights of tiny models moved along their training's way, and models that do not belong together refused."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignment.errors import UserError
from alignment.merging import Average, Extrapolate
from infra.merging import merge_folders

WEIGHTS = "model.safetensors"


@pytest.fixture
def trained(tiny_policy: Path, tmp_path: Path) -> Path:
    """The tiny policy after a step of 0.5 on every weight, with a training log beside it."""
    return changed(tiny_policy, tmp_path / "trained", lambda name, value: value + 0.5)


def changed(policy: Path, to: Path, change) -> Path:
    shutil.copytree(policy, to)
    weights = {name: change(name, value) for name, value in load_file(policy / WEIGHTS).items()}
    save_file(weights, to / WEIGHTS, metadata={"format": "pt"})
    (to / "train_log.json").write_text("[]")
    return to


@pytest.mark.parametrize(("how", "moved"), [(Extrapolate(alpha=0.4), 0.7), (Average(share=0.25), 0.125)])
def test_every_weight_goes_its_share_of_the_way(trained, tiny_policy, tmp_path, how, moved):
    """0.5 is the way: 0.5 + 0.4 * 0.5 beyond it, 0.25 * 0.5 back."""
    merge_folders(trained, tiny_policy, how.step, tmp_path / "out")
    before, after = load_file(tiny_policy / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value + moved)


def test_a_merged_policy_opens_as_the_trained_one_does(trained, tiny_policy, tmp_path):
    """Config, tokenizer and log come along; the model answers with finite numbers of its own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merge_folders(trained, tiny_policy, 0.3, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in trained.iterdir()}
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("Dear Anna", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = [AutoModelForCausalLM.from_pretrained(f)(ids).logits for f in (tmp_path / "out", trained)]
    assert logits[0].isfinite().all()
    assert not torch.equal(*logits)


def test_weights_that_training_left_alone_stay_to_the_bit(tiny_policy, tmp_path):
    """(1 + a) x - a x would round; x + a (x - x) does not."""
    merge_folders(tiny_policy, tiny_policy, 0.3, tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (tiny_policy / WEIGHTS).read_bytes()


def test_bf16_is_moved_in_float32(tiny_policy, tmp_path):
    """3 + 0.3 (3 - 1) = 3.6, which bf16 rounds to 3.59375. Summed in bf16, 1.3 * 3 = 3.90625 less 0.3 = 0.30078125 is
    3.609375."""
    start = changed(tiny_policy, tmp_path / "a", lambda name, v: torch.ones_like(v, dtype=torch.bfloat16))
    trained = changed(tiny_policy, tmp_path / "b", lambda name, v: torch.full_like(v, 3, dtype=torch.bfloat16))
    merge_folders(trained, start, 0.3, tmp_path / "out")
    values = torch.cat([v.flatten() for v in load_file(tmp_path / "out" / WEIGHTS).values()])
    assert values.dtype == torch.bfloat16
    assert values.unique().tolist() == [3.59375]


def test_shards_are_found_by_tensor_not_by_file(trained, tiny_policy, tmp_path):
    """The trained policy in shards, the start in one file."""
    from transformers import AutoModelForCausalLM

    sharded = shutil.copytree(trained, tmp_path / "sharded", ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(trained).save_pretrained(sharded, max_shard_size="60KB")
    assert len(list(Path(sharded).glob("*.safetensors"))) > 1
    merge_folders(Path(sharded), tiny_policy, 1.0, tmp_path / "out")
    expected = load_file(tiny_policy / WEIGHTS)
    found = {k: v for f in (tmp_path / "out").glob("*.safetensors") for k, v in load_file(f).items()}
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found["lm_head.weight"], expected["lm_head.weight"] + 1.0)


def test_models_of_other_shapes_tensors_or_tokenizers_are_refused_before_anything_is_written(
    trained, tiny_policy, tmp_path
):
    def narrower(name, value):
        return value[:-1].clone() if name == "lm_head.weight" else value

    others = {
        r"lm_head.weight is \[384, 32\] in .* and \[383, 32\]": changed(tiny_policy, tmp_path / "narrow", narrower),
        "the tokenizers of .* differ": changed(tiny_policy, tmp_path / "tokens", lambda name, value: value),
        "only one of them has model.norm.weight": changed(tiny_policy, tmp_path / "less", lambda name, value: value),
    }
    (tmp_path / "tokens" / "chat_template.jinja").write_text("{{ messages }}")
    less = load_file(tmp_path / "less" / WEIGHTS)
    less.pop("model.norm.weight")
    save_file(less, tmp_path / "less" / WEIGHTS, metadata={"format": "pt"})
    for message, other in others.items():
        with pytest.raises(UserError, match=message):
            merge_folders(trained, other, 0.3, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_step_that_overflows_is_refused(tiny_policy, tmp_path):
    start = changed(tiny_policy, tmp_path / "a", lambda name, v: torch.zeros_like(v, dtype=torch.float16))
    far = changed(tiny_policy, tmp_path / "b", lambda name, v: torch.full_like(v, 6e4, dtype=torch.float16))
    with pytest.raises(UserError, match=r"leaves the range of torch\.float16 at step 0\.3"):
        merge_folders(far, start, 0.3, tmp_path / "out")
