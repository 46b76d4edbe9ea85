"""A model folder is whole, or is refused in one line that says what it lacks."""

import json
import shutil

import pytest
from model_copies import adopt, edit, own_code, save_sharded

from alignment.errors import UserError
from infra.model_folder import context_length, safetensors_header


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "store")


def no_config(folder):
    (folder / "config.json").unlink()


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def only_pickles(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def weights_cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def weights_of_a_few_bytes(folder):
    (folder / "model.safetensors").write_bytes(b"nothing")


def weights_are_a_page(folder):
    (folder / "model.safetensors").write_bytes(b"<!DOCTYPE html><html>the sign-in page</html>")


def header_is_no_header(folder):
    (folder / "model.safetensors").write_bytes((4).to_bytes(8, "little") + b"[1]\n")


def weights_are_a_pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


def tokenizer_is_a_pointer(folder):
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


def a_shard_is_missing(folder):
    save_sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def a_shard_lacks_a_tensor(folder):
    save_sharded(folder)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors")


def no_index(folder):
    save_sharded(folder)
    (folder / "model.safetensors.index.json").unlink()


def empty_index(folder):
    (folder / "model.safetensors.index.json").write_text("{}")


def no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def config_is_broken(folder):
    (folder / "config.json").write_text("{")


def only_an_adapter(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")


def own_tokenizer_code(folder):
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", None]})


def a_classifier(folder):
    edit(folder / "config.json", architectures=["LlamaForSequenceClassification"])


def too_few_embeddings(folder):
    edit(folder / "config.json", vocab_size=300)


def no_context(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (no_config, "has no config.json: give a model directory"),
        (only_an_adapter, "has no config.json: it is an adapter: merge it into its base model"),
        (config_is_broken, "config.json is malformed JSON"),
        (no_weights, "has no weights: no model.safetensors. Give a folder written by save_pretrained"),
        (only_pickles, r"weights only as pickles \(pytorch_model.bin\), which can run code"),
        (weights_cut_short, r"bytes, its header says \d+: get it again"),
        (weights_of_a_few_bytes, r"\(7 bytes\) is no safetensors file, or is cut short"),
        (weights_are_a_page, "is no safetensors file, or is cut short"),
        (header_is_no_header, "has no readable safetensors header"),
        (weights_are_a_pointer, "is a Git LFS pointer, not the file: run `git lfs pull`"),
        (tokenizer_is_a_pointer, "tokenizer.json is a Git LFS pointer"),
        (a_shard_is_missing, "1 of 2 weight files are missing, the first is model-00002-of-00002.safetensors"),
        (a_shard_lacks_a_tensor, "model-00002-of-00002.safetensors lacks"),
        (no_index, "has no model.safetensors.index.json, though it has model-00001-of-00002.safetensors"),
        (empty_index, "has no weight_map"),
        (no_tokenizer, "has no tokenizer.json. Save a fast tokenizer there"),
        (own_code, r"\(auto_map\) runs Python code of its own. Read that code, then set trust_remote_code = true"),
        (own_tokenizer_code, r"\(auto_map\) runs Python code of its own"),
        (a_classifier, "is a LlamaForSequenceClassification, which cannot write"),
        (too_few_embeddings, "as id 300, its model only 300 embeddings"),
        (no_context, "tells no context length: add max_position_embeddings"),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused_in_one_line(store, policy, damage, reason):
    damage(policy)
    with pytest.raises(UserError, match=reason) as refused:
        adopt(store, policy)
    assert str(policy) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_context_is_read_from_each_familys_field(tiny_policy, policy):
    assert context_length(tiny_policy) == 128
    (policy / "config.json").write_text('{"n_positions": 1024}')
    assert context_length(policy) == 1024
    (policy / "config.json").write_text('{"text_config": {"max_position_embeddings": 32}}')
    assert context_length(policy) == 32


def test_a_header_lists_the_tensors(tiny_policy):
    assert safetensors_header(tiny_policy / "model.safetensors")["lm_head.weight"]["shape"] == [384, 32]
