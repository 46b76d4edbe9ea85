"""A model folder is whole, or is refused in one line that says what it lacks."""

import json
import shutil
from pathlib import Path

import pytest
from model_copies import adopt, edit, own_code, save_sharded
from odd_names import ODD_NAMES

from alignment.errors import UserError
from infra.model_folder import context_length, model_files, safetensors_header


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


def nested_code(folder):
    edit(folder / "config.json", text_config={"auto_map": {"AutoModel": "own.Own"}})


def asks_to_be_trusted(folder):
    edit(folder / "config.json", trust_remote_code=True)


def own_generation_code(folder):
    (folder / "generation_config.json").write_text('{"auto_map": {"GenerationConfig": "own.Own"}}')


def a_link_out(folder):
    (folder.parent / "secret").write_text("mine")
    (folder / "merges.txt").symlink_to(folder.parent / "secret")


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
        (nested_code, r"\(auto_map\) runs Python code of its own"),
        (asks_to_be_trusted, r"\(auto_map\) runs Python code of its own"),
        (own_generation_code, r"\(auto_map\) runs Python code of its own"),
        (a_link_out, "merges.txt is a link out of"),
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


@pytest.mark.parametrize("name", [*ODD_NAMES.values(), "sub/model.safetensors", "model.bin", 3])
def test_an_index_names_files_beside_it_and_no_others(store, policy, name):
    """Else a file of anywhere would be read, and be written to anywhere in the store."""
    save_sharded(policy)
    edit(policy / "model.safetensors.index.json", weight_map={"lm_head.weight": name})
    with pytest.raises(UserError, match=r"index\.json names '.*', no safetensors file beside it") as refused:
        adopt(store, policy)
    assert str(refused.value).isprintable()
    assert not Path(store).exists()


def test_links_within_the_folder_and_into_the_hubs_cache_are_followed(policy, tmp_path):
    """The hub's cache keeps files as blobs, and a snapshot's names as links to them."""
    (policy / "merges.txt").symlink_to("config.json")
    assert "merges.txt" in model_files(policy)
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0f", tmp_path / "models--a--b" / "blobs"
    shutil.copytree(policy, blobs)
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    assert model_files(snapshot).keys() == model_files(policy).keys()


@pytest.fixture
def lying(policy):
    """Puts a header of one's own before the weights."""

    def write(header: bytes | dict[str, object], data: bytes = b"\0" * 64) -> Path:
        told = header if isinstance(header, bytes) else json.dumps(header).encode()
        (policy / "model.safetensors").write_bytes(len(told).to_bytes(8, "little") + told + data)
        return policy

    return write


def tensor(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64], **changes}


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor(shape=[4, 5])},
        {"a": tensor(shape=[2, 4])},
        {"a": tensor(dtype="F99")},
        {"a": tensor(dtype="F64")},
        {"a": tensor(shape=[-4, -4])},
        {"a": tensor(shape="all")},
        {"a": tensor(shape=[2**62, 2**62])},
        {"a": tensor(data_offsets=[0, 128])},
        {"a": tensor(data_offsets=[-64, 64])},
        {"a": tensor(data_offsets=[64, 0])},
        {"a": tensor(data_offsets="0")},
        {"a": tensor(), "b": tensor()},
        {"a": tensor(shape=[2, 4], data_offsets=[32, 64])},
        {"a": {"dtype": "F32"}},
        {"a": 3},
        {"__metadata__": {"format": "pt"}},
        b"{}",
        b"[]",
        b"{",
        b'{"a": ' * 20_000,
    ],
)
def test_a_header_that_lies_is_told_in_one_line(store, lying, header):
    folder = lying(header)
    with pytest.raises(UserError, match=r"model\.safetensors") as refused:
        adopt(store, folder)
    assert str(refused.value).isprintable()
    assert not Path(store).exists()


@pytest.mark.parametrize("length", [0, 2**32, 2**63])
def test_a_header_longer_than_the_file_is_told_in_one_line(store, policy, length):
    (policy / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}" * 100)
    with pytest.raises(UserError, match=r"is no safetensors file, or is cut short"):
        adopt(store, policy)
