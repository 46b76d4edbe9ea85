"""Models are adopted by content, wherever they come from."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from model_copies import adopt, edit, own_code, save_sharded

from alignment.errors import UserError
from infra import artifacts
from infra.model_folder import model_files
from infra.vocabulary import tokenizer_digest


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "store")


def test_an_adopted_model_loads_with_plain_transformers(store, tiny_policy):
    from transformers import AutoModelForCausalLM

    adopted = adopt(store, tiny_policy)
    model = AutoModelForCausalLM.from_pretrained(artifacts.fetch_tree(adopted))
    assert sum(p.numel() for p in model.parameters()) == adopted.facts["parameters"] == 45216
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
    assert adopted.facts["parameters"] == 45216
    assert len(list(artifacts.fetch_tree(adopted).glob("*.safetensors"))) == 2


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
        "from infra.models import adopt_model; from alignment.models import Pretrained\n"
        "from alignment.errors import UserError\n"
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
    for path in Path(shutil.copytree(tiny_policy, tmp_path / "hub" / "blobs")).iterdir():
        (snapshot / path.name).symlink_to(path)
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda model, **wanted: asked.update(wanted) or snapshot)
    adopted = adopt(store, "nobody/something", revision="main")
    assert (adopted.facts["source"], adopted.facts["revision"]) == ("nobody/something", "0123abc")
    assert asked["revision"] == "main"
    assert not any(pattern.endswith((".bin", ".py")) for pattern in asked["allow_patterns"])
    assert adopted == adopt(store, tiny_policy)
