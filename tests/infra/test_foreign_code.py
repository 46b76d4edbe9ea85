"""Nothing of a model runs code: neither pickles under whatever name, nor modules, nor templates."""

import contextlib
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from model_copies import adopt, edit, save_sharded

from alignment.config import Train
from alignment.errors import UserError
from alignment.rendering import load_tokenizer
from alignment.template_probe import check_template
from alignment.types import Message, Prompt
from infra import artifacts
from infra.model_actor import read_model
from infra.train_engine import load_model, without_dropout

INDEX = "model.safetensors.index.json"


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, cage: Path):
        self._cage = cage

    def __reduce__(self):
        return (Path.touch, (self._cage,))


@pytest.fixture
def cage(tmp_path: Path) -> Path:
    """The file that code of the model would write."""
    return tmp_path / "sung"


def plain(protocol: int) -> Callable[[object], bytes]:
    return lambda value: pickle.dumps(value, protocol)


def archived(value: object) -> bytes:
    """As torch writes it: a zip file with the pickle in it."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, 2))
    return data.getvalue()


def saved_by_torch(value: object) -> bytes:
    import torch

    data = io.BytesIO()
    torch.save({"lm_head.weight": torch.zeros(2), "more": value}, data)
    return data.getvalue()


def saved_by_old_torch(value: object) -> bytes:
    import torch

    data = io.BytesIO()
    torch.save({"more": value}, data, _use_new_zipfile_serialization=False)
    return data.getvalue()


PICKLES = {
    **{f"protocol {n}": plain(n) for n in (2, 3, 4, 5)},
    "zip": archived,
    "torch": saved_by_torch,
    "old torch": saved_by_old_torch,
}
pickled = pytest.mark.parametrize("write", PICKLES.values(), ids=PICKLES.keys())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_canary_sings_when_it_is_unpickled(cage: Path, protocol: int):
    """What the tests below would see."""
    pickle.loads(plain(protocol)(Canary(cage)))
    assert cage.exists()


@pickled
@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "model.pt",
        "model.ckpt",
        "weights.pkl",
        "model.safetensors",
        "model.SAFETENSORS",
        "model.npz",
        "model.zip",
        "consolidated.00.pth",
    ],
)
def test_a_pickle_offered_as_weights_is_refused_under_any_name(tmp_path, policy, cage, write, name: str):
    (policy / "model.safetensors").unlink()
    (policy / name).write_bytes(write(Canary(cage)))
    for store in (lambda at: adopt(at, policy), lambda at: artifacts.commit_tree(at, "policy", "r1", policy)):
        with pytest.raises(UserError) as refused:
            store(str(tmp_path / "store"))
        assert str(refused.value).isprintable()
        assert any(word in str(refused.value) for word in ("pickle", "has no weights"))
    assert not cage.exists()
    assert not (tmp_path / "store").exists()


@pickled
def test_a_pickle_beside_good_weights_is_refused_or_left_behind(tmp_path, policy, cage, write):
    (policy / "pytorch_model.bin").write_bytes(write(Canary(cage)))
    found = artifacts.fetch_tree(adopt(str(tmp_path / "store"), policy))
    assert not (found / "pytorch_model.bin").exists()
    (policy / "tokenizer.model").write_bytes(write(Canary(cage)))
    with pytest.raises(UserError, match=r"tokenizer\.model is a pickle"):
        adopt(str(tmp_path / "other"), policy)
    assert not cage.exists()


@pickled
def test_a_pickle_in_the_place_of_a_shard_is_refused(tmp_path, policy, cage, write):
    save_sharded(policy)
    (policy / "model-00002-of-00002.safetensors").write_bytes(write(Canary(cage)))
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors is a pickle"):
        adopt(str(tmp_path / "store"), policy)
    assert not cage.exists()


def test_a_safetensors_header_whose_length_reads_like_a_pickle_is_none(tmp_path, tiny_policy, policy):
    """640 bytes are 0x280: the file begins with the two bytes of a pickle of protocol 2."""
    data = (tiny_policy / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    wanted = (length // 0x10000 + 1) * 0x10000 + 0x0280
    grown = data[8 : 8 + length] + b" " * (wanted - length)
    (policy / "model.safetensors").write_bytes(wanted.to_bytes(8, "little") + grown + data[8 + length :])
    assert (policy / "model.safetensors").read_bytes()[:2] == b"\x80\x02"
    adopt(str(tmp_path / "store"), policy)


def test_a_foreign_store_lists_no_pickle_among_a_models_files(tmp_path, policy, overwrite):
    import json

    from alignment.types import digest_of

    store = str(tmp_path / "store")
    made = artifacts.commit_tree(store, "policy", "r1", policy)
    path = Path(store, "objects/policy/r1/record.json")
    record = json.loads(path.read_text())
    attempt = record["files"][0]["path"].rpartition("/")[0]
    record["files"].append({"path": f"{attempt}/pytorch_model.bin", "size": 1, "sha256": "0" * 64})
    record["digest"] = digest_of({f["path"].rpartition("/")[2]: f["sha256"] for f in record["files"]})
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"lists a pickle \(pytorch_model\.bin\)"):
        artifacts.fetch_tree(made.model_copy(update={"digest": record["digest"]}))


OWN = """
from pathlib import Path
Path({cage!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Own(LlamaForCausalLM): pass
class OwnConfig(LlamaConfig): model_type = "own"
class OwnTokenizer(PreTrainedTokenizerFast): pass
"""


@pytest.fixture(params=["its own kind of model", "a known kind with code", "code for the tokenizer"])
def own(request: pytest.FixtureRequest, policy: Path, cage: Path) -> Path:
    """A model that brings code, which writes a file when it is imported."""
    (policy / "own.py").write_text(OWN.format(cage=str(cage)))
    if request.param == "code for the tokenizer":
        edit(policy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]})
        return policy
    edit(policy / "config.json", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"})
    if request.param == "its own kind of model":
        edit(policy / "config.json", model_type="own")
    return policy


def test_a_model_that_brings_code_is_refused_and_none_of_it_runs(tmp_path, own, cage):
    with pytest.raises(UserError, match=r"code of its own\. Read that code, then set trust_remote_code") as told:
        adopt(str(tmp_path / "store"), own)
    assert str(told.value).isprintable()
    assert not cage.exists()
    assert not (tmp_path / "store").exists()


def test_even_a_trusted_models_code_is_stored_and_not_run(tmp_path, own, cage):
    """transformers' own class of its type is what opens it, where there is one."""
    with contextlib.suppress(UserError):
        stored = adopt(str(tmp_path / "store"), own, trust_remote_code=True)
        assert (artifacts.fetch_tree(stored) / "own.py").is_file()
        read_model("causal", artifacts.fetch_tree(stored), "float32")
    assert not cage.exists()


def test_a_trusted_model_that_only_its_own_code_could_open_is_refused(tmp_path, policy):
    edit(policy / "config.json", model_type="own", auto_map={"AutoConfig": "own.OwnConfig"})
    with pytest.raises(UserError, match="transformers has no model of type 'own', and engines run no code"):
        adopt(str(tmp_path / "store"), policy, trust_remote_code=True)


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: read_model("causal", folder, "float32"),
        lambda folder: read_model("classifier", folder, "float32"),
        lambda folder: load_model(folder, Train()),
        without_dropout,
        load_tokenizer,
    ],
)
def test_whoever_opens_it_all_the_same_runs_none_of_it(own, cage, load, monkeypatch):
    """Nor waits for somebody to say yes at a terminal."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with contextlib.suppress(ValueError, UserError, OSError):
        load(own)
    assert not cage.exists()


TEMPLATES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('touch CAGE').read() }}",
    "attributes": "{{ ('' | attr('__class__')) }}",
    "files": "{% include '/etc/passwd' %}",
    "imports": "{% import 'os' as os %}{{ os.system('touch CAGE') }}",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_chat_template_reaches_nothing_beside_the_conversation(tiny_tokenizer, cage, template: str):
    tokenizer = load_tokenizer(tiny_tokenizer)
    tokenizer.chat_template = template.replace("CAGE", str(cage)) + tokenizer.chat_template
    try:
        check_template(tokenizer, Prompt.of((Message(role="user", content="Hi"),)), "Yes.")
    except UserError as refused:
        assert "the chat template refuses a conversation" in str(refused)  # noqa: PT017
    else:
        assert template == TEMPLATES["attributes"]
    assert not cage.exists()
