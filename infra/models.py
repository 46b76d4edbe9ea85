"""Adopting a model that exists: a transformers directory, a hub id, or the address of a model in a store."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from alignment.errors import UserError
from alignment.models import Pretrained
from alignment.types import Artifact, digest_of
from infra import artifacts, objects, storage
from infra.model_folder import (
    INDEX,
    TOKENIZER_FILES,
    context_length,
    model_files,
    parameters,
    read_config,
    vocabulary_size,
)
from infra.redaction import redacted
from infra.stored_files import sha256_of
from infra.vocabulary import tokenizer_digest, tokenizer_parts

ModelKind = Literal["policy", "reward_model"]
_STORED = re.compile(r"(?P<store>.+)/objects/(?P<kind>policy|reward_model)/(?P<recipe>[A-Za-z0-9_-]+)/?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def adopt_model(store: str, source: Pretrained, kind: ModelKind) -> Artifact:
    """The model as an artifact of this store, with its files checked before any engine opens them.

    Its recipe is the digest of its files, so equal content from anywhere is found and not stored again; a model of
    this very store is taken as it is. Raises UserError where the source is not found, cannot be trusted or is not
    whole (``model_files``), and where the tokenizer has ids that the model has no embedding for.
    """
    if stored := _STORED.fullmatch(source.model):
        found = _stored(stored["store"], stored["kind"], stored["recipe"], source)
        if found.kind == kind and objects.store_of(found) == storage.canonical(store):
            return found
        return _adopt_folder(store, artifacts.fetch_tree(found), kind, source, found.uri)
    folder = _local(source) or _from_hub(source)
    return _adopt_folder(store, folder, kind, source, source.model)


def _adopt_folder(store: str, folder: Path, kind: ModelKind, source: Pretrained, origin: str) -> Artifact:
    files = model_files(folder, trust_remote_code=source.trust_remote_code)
    _check_kind(folder, kind)
    if source.trust_remote_code:
        _check_known(folder)
    _check_vocabulary(folder)
    digests = {name: sha256_of(path) for name, path in files.items()}
    asked = artifacts.asked(kind, files=digests)
    recipe = digest_of(asked)
    if found := artifacts.find(store, kind, recipe):
        return found
    facts = {
        "source": origin,
        "revision": folder.name if folder.parent.name == "snapshots" else None,  # the hub's cache names it so
        "parameters": parameters(files.values()),
        "context": context_length(folder),
        "tokenizer": tokenizer_digest(folder),
    }
    # not commit_tree: the folder may hold pickled twins and links that stay behind, and each file is hashed already
    stored = objects.write_files(store, kind, recipe, files)
    return objects.commit(store, kind, recipe, digest_of(digests), stored, parents=(), facts=facts, asked=asked)


def _stored(store: str, kind: str, recipe: str, source: Pretrained) -> Artifact:
    _refuse_revision(source)
    found = artifacts.find(store, "policy" if kind == "policy" else "reward_model", recipe)
    if found is None:
        raise UserError(f"{source.model}: store {store} has no such model. `ratchet show` lists what runs have made")
    return found


def _local(source: Pretrained) -> Path | None:
    """The folder; None where the text can only be a hub id."""
    folder = Path(source.model.removeprefix("file://")).expanduser()
    if folder.is_dir():
        _refuse_revision(source)
        return folder
    if folder.exists():
        raise UserError(f"{source.model} is a file: give the folder it is in, with config.json and tokenizer.json")
    if "://" in source.model:
        raise UserError(
            f"{source.model} is no model in a store. Give a folder, a hub id, or STORE/objects/policy/RECIPE"
        )
    if not _HUB_ID.fullmatch(source.model):
        raise UserError(f"{source.model} does not exist{_nearest(folder)}")
    return None


def _from_hub(source: Pretrained) -> Path:
    from httpx2 import HTTPError  # what the hub's client lets through, such as a proxy's refusal
    from huggingface_hub import snapshot_download  # only a hub id needs the network
    from huggingface_hub.errors import EntryNotFoundError, RevisionResolutionError

    try:
        return Path(
            snapshot_download(
                source.model,
                revision=source.revision,
                allow_patterns=["config.json", "generation_config.json", "model*.safetensors", INDEX, *TOKENIZER_FILES]
                + (["*.py"] if source.trust_remote_code else []),
                ignore_patterns=["*/*"],
            )
        )
    except (OSError, ValueError, EntryNotFoundError, RevisionResolutionError, HTTPError) as e:
        at = f" at revision {source.revision}" if source.revision else ""
        folder = Path(source.model)
        raise UserError(
            f"{source.model}{at} is no folder here{_nearest(folder)}, and the hub did not give it: "
            f"{redacted(str(e).splitlines()[0])} Download it elsewhere and give the folder"
        ) from e


def _nearest(folder: Path) -> str:
    if not folder.parent.is_dir():
        return f": there is no {folder.parent} either"
    near = get_close_matches(folder.name, [path.name for path in folder.parent.iterdir() if path.is_dir()], n=1)
    return f" (the nearest name in {folder.parent} is {near[0]})" if near else ""


def _refuse_revision(source: Pretrained) -> None:
    if source.revision is not None:
        raise UserError(f"{source.model} is a folder, revision {source.revision!r} is for hub ids: leave it out")


def _check_kind(folder: Path, kind: ModelKind) -> None:
    named = read_config(folder).get("architectures") or []
    classifiers = [name for name in named if name.endswith("ForSequenceClassification")]
    if kind == "policy" and classifiers:
        raise UserError(f"{folder} is a {classifiers[0]}, which cannot write: give a causal language model as policy")


def _check_known(folder: Path) -> None:
    """A model trusted with its code is opened by transformers' own class of its type: the code is stored, not run."""
    # torch, which only such models cost
    from transformers.models.auto.configuration_auto import (
        CONFIG_MAPPING_NAMES,  # pyright: ignore[reportPrivateImportUsage]
    )

    if (own := read_config(folder).get("model_type")) not in CONFIG_MAPPING_NAMES:
        raise UserError(
            f"{folder}: transformers has no model of type {own!r}, and engines run no code of a model directory. "
            "Give a model of a type that it has"
        )


def _check_vocabulary(folder: Path) -> None:
    size, parts = vocabulary_size(folder), tokenizer_parts(folder)
    if size is None:
        return
    written = f"{parts['chat template']} {parts['bos_token']} {parts['eos_token']}"
    for token, number in parts["vocabulary"].items():
        # some families name an added token beyond their embeddings that no text conversation ever holds
        if number >= size and (token not in parts["added"] or token in written):
            raise UserError(
                f"{folder}: its tokenizer has {token!r} as id {number}, its model only {size} embeddings. "
                "Give the tokenizer the model was trained with, or resize the model's embeddings"
            )
