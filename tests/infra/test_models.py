import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.models import Pretrained
from infra import artifacts
from infra.model_folder import model_files, safetensors_header
from infra.models import adopt_model, context_length, same_tokenizer, tokenizer_digest


@pytest.fixture
def policy(tiny_policy, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_policy, tmp_path / "policy")


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "store")


def adopt(store, folder, kind="policy", **source):
    return adopt_model(store, Pretrained(model=str(folder), **source), kind)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def save_sharded(folder):
    """The one weight file cut into two, as large models come."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_an_adopted_model_loads_with_plain_transformers(store, tiny_policy):
    from transformers import AutoModelForCausalLM

    adopted = adopt(store, tiny_policy)
    model = AutoModelForCausalLM.from_pretrained(artifacts.fetch_tree(adopted))
    assert sum(p.numel() for p in model.parameters()) == adopted.facts["parameters"] == 43168
    assert (adopted.kind, adopted.facts["context"]) == ("policy", 128)
    assert adopted.facts["tokenizer"] == tokenizer_digest(tiny_policy)


def test_equal_content_from_another_folder_is_found_again(store, tiny_policy, policy):
    (policy / "notes.md").write_text("not part of the model")
    (policy / "pytorch_model.bin").write_bytes(b"a pickled twin")
    first, second = adopt(store, tiny_policy), adopt(store, policy)
    assert first == second
    assert not list(artifacts.fetch_tree(second).glob("*.bin"))


def test_other_content_is_another_artifact(store, tiny_policy, policy):
    edit(policy / "generation_config.json", max_length=99)
    assert adopt(store, tiny_policy).recipe != adopt(store, policy).recipe


def test_adopting_is_committing_the_folder(store, tiny_policy):
    """The digest is the one that ``commit_tree`` gives the same files."""
    adopted = adopt(store, tiny_policy)
    committed = artifacts.commit_tree(store, "policy", "by-hand", tiny_policy)
    assert adopted.digest == committed.digest


def test_a_model_of_the_same_store_is_taken_as_it_is(store, tiny_policy):
    made = artifacts.commit_tree(store, "policy", "made-by-a-round", tiny_policy)
    assert adopt(store, made.uri) == made


def test_a_model_of_another_store_or_kind_is_adopted_by_content(store, tiny_policy, tmp_path):
    elsewhere = artifacts.commit_tree(str(tmp_path / "other"), "policy", "made-by-a-round", tiny_policy)
    adopted = adopt(store, elsewhere.uri)
    assert adopted.uri.startswith(store)
    assert adopted == adopt(store, tiny_policy)
    assert adopt(store, adopted.uri, kind="reward_model").kind == "reward_model"


def test_a_model_goes_into_a_memory_store(tiny_policy, tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    adopted = adopt("memory://adopt", tiny_policy)
    assert adopt("memory://adopt", adopted.uri) == adopted
    assert sorted(p.name for p in artifacts.fetch_tree(adopted).iterdir()) == sorted(model_files(tiny_policy))


def test_an_address_that_holds_no_model_is_refused(store):
    with pytest.raises(UserError, match="has no such model"):
        adopt(store, f"{store}/objects/policy/0123abc")


def test_a_sharded_model_is_adopted(store, policy):
    save_sharded(policy)
    adopted = adopt(store, policy)
    assert adopted.facts["parameters"] == 43168
    assert len(list(artifacts.fetch_tree(adopted).glob("*.safetensors"))) == 2


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


def own_code(folder):
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})


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


def test_code_of_a_trusted_model_goes_with_it(store, policy):
    own_code(policy)
    (policy / "modeling_own.py").write_text("class Own: ...\n")
    adopted = adopt(store, policy, trust_remote_code=True)
    assert (artifacts.fetch_tree(adopted) / "modeling_own.py").is_file()


def test_a_reward_model_needs_no_chat_template(store, tiny_reward_model, tmp_path):
    folder = shutil.copytree(tiny_reward_model, tmp_path / "reward")
    (folder / "chat_template.jinja").unlink()
    assert adopt(store, folder, kind="reward_model").kind == "reward_model"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("./policies/tiny", r"\./policies/tiny does not exist: there is no policies either"),
        ("{parent}/polcy", r"polcy does not exist \(the nearest name in .* is policy\)"),
        ("{parent}/policy/config.json", "is a file: give the folder it is in"),
        ("s3://bucket/models/tiny", "is no model in a store. Give a folder, a hub id, or STORE/objects/policy/RECIPE"),
    ],
)
def test_a_source_that_is_nowhere_is_refused_with_the_nearest_name(store, policy, model, reason):
    with pytest.raises(UserError, match=reason):
        adopt(store, model.format(parent=policy.parent))


def test_a_revision_of_a_folder_is_refused(store, tiny_policy):
    with pytest.raises(UserError, match="revision 'main' is for hub ids: leave it out"):
        adopt(store, tiny_policy, revision="main")


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_way_out(tmp_path):
    """In a process of its own: the hub's client reads its address once, when it is imported."""
    program = (
        "from infra.models import *; from alignment.models import Pretrained; from alignment.errors import UserError\n"
        "import sys\n"
        "try:\n"
        f"    adopt_model({str(tmp_path)!r}, Pretrained(model='nobody/nothing'), 'policy')\n"
        "except UserError as e:\n"
        "    print(e); print('torch' in sys.modules)"
    )
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub"), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2], env=env
    )
    assert ran.returncode == 0, ran.stderr
    told, torch = ran.stdout.splitlines()
    assert told.startswith("nobody/nothing is no folder here")
    assert told.endswith("Download it elsewhere and give the folder")
    assert torch == "False"


def test_a_hub_id_is_taken_from_the_hub_with_its_revision(store, tiny_policy, tmp_path, monkeypatch):
    """The download is replaced by the layout the hub's cache has on disk: links into a folder of blobs."""
    snapshot = tmp_path / "hub" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for path in tiny_policy.iterdir():
        (snapshot / path.name).symlink_to(path)
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda model, **wanted: asked.update(wanted) or snapshot)
    adopted = adopt(store, "nobody/something", revision="main")
    assert (adopted.facts["source"], adopted.facts["revision"]) == ("nobody/something", "0123abc")
    assert asked["revision"] == "main"
    assert not any(pattern.endswith((".bin", ".py")) for pattern in asked["allow_patterns"])
    assert adopted == adopt(store, tiny_policy)


def test_context_is_read_from_each_familys_field(tiny_policy, policy):
    assert context_length(tiny_policy) == 128
    (policy / "config.json").write_text('{"n_positions": 1024}')
    assert context_length(policy) == 1024
    (policy / "config.json").write_text('{"text_config": {"max_position_embeddings": 32}}')
    assert context_length(policy) == 32


def test_a_model_shares_its_tokenizer_with_its_copy(tiny_policy, tiny_reward_model, policy):
    edit(policy / "tokenizer_config.json", pad_token="<eos>", model_max_length=9)
    same_tokenizer(tiny_policy, policy)
    same_tokenizer(tiny_policy, tiny_reward_model)


def test_a_template_counts_equal_wherever_it_is_kept(tiny_policy, policy):
    template = policy / "chat_template.jinja"
    edit(policy / "tokenizer_config.json", chat_template=template.read_text())
    template.unlink()
    same_tokenizer(tiny_policy, policy)


def test_merges_count_equal_in_both_spellings(tiny_policy, policy):
    tokenizer = json.loads((policy / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = [" ".join(merge) for merge in tokenizer["model"]["merges"]]
    tokenizer["model"]["ignore_merges"] = False
    edit(policy / "tokenizer.json", **tokenizer)
    same_tokenizer(tiny_policy, policy)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda t: t["model"]["vocab"].update(Zebra=384), "vocabulary 'Zebra' is None and 384"),
        (lambda t: t["model"]["merges"].pop(), r"merges from number 121 on are \[.*\] and \[\]"),
        (lambda t: t.update(normalizer={"type": "Lowercase"}), "rules 'normalizer' is None and {'type': 'Lowercase'}"),
    ],
)
def test_tokenizers_that_differ_are_refused_with_the_first_difference(tiny_policy, policy, change, difference):
    tokenizer = json.loads((policy / "tokenizer.json").read_text())
    change(tokenizer)
    (policy / "tokenizer.json").write_text(json.dumps(tokenizer))
    ours, theirs = tokenizer_digest(tiny_policy)[:12], tokenizer_digest(policy)[:12]
    with pytest.raises(UserError, match=rf"\(digest {ours}\) and .* \(digest {theirs}\) differ: {difference}"):
        same_tokenizer(tiny_policy, policy)


def test_another_chat_template_or_eos_is_another_tokenizer(tiny_policy, policy):
    edit(policy / "tokenizer_config.json", eos_token="<|user|>")
    with pytest.raises(UserError, match=r"eos_token is '<eos>' and '<\|user\|>'"):
        same_tokenizer(tiny_policy, policy)
    (policy / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_digest(policy) != tokenizer_digest(tiny_policy)


def test_real_tokenizer_files_are_digested(shared_data, tmp_path):
    folder = shutil.copytree(shared_data / "tokenizers/tiny/oasst_neox_783", tmp_path / "neox")
    assert len(tokenizer_digest(folder)) == 64
    same_tokenizer(folder, folder)


def test_a_header_lists_the_tensors(tiny_policy):
    assert safetensors_header(tiny_policy / "model.safetensors")["lm_head.weight"]["shape"] == [384, 32]
