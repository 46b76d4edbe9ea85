"""Objects that are directories: models as safetensors, JSON and tokenizer files. Pickles run code when they are
loaded, so none is ever stored."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from pydantic import JsonValue

from alignment.errors import UserError
from alignment.types import Artifact, Kind, digest_of
from infra import objects, storage
from infra.objects import Asked, ObjectRecord, Parents, StoredFile
from infra.recipes import folder_of

PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})

_verified: set[tuple[str, str]] = set()
"""Address and digest of what this process has read in full: models are large, and opened by several engines."""


def commit_tree(
    store: str,
    kind: Kind,
    recipe: str,
    folder: Path,
    *,
    parents: Parents = (),
    facts: Mapping[str, JsonValue] = {},
    asked: Asked = None,
) -> Artifact:
    """Store all files of a folder as one object. An equal one that is there is found; another is a Conflict.

    The digest is of relative paths and contents. UserError for pickles, links that lead out of the folder, and
    nothing at all.
    """
    sources = _files(folder)
    digest = digest_of({name: objects.sha256_of(source) for name, source in sources.items()})
    if found := objects.find(store, kind, recipe):
        return objects.same(found, digest, store, f"{kind}/{recipe}")
    files = objects.write_files(store, kind, recipe, sources)
    return objects.commit(store, kind, recipe, digest, files, parents=parents, facts=facts, asked=asked)


def fetch_tree(artifact: Artifact) -> Path:
    """A folder of this machine that holds the files; not to be written to.

    On a local store it is the object's own, elsewhere a copy in ``RATCHET_CACHE`` (default ``~/.cache/ratchet``).
    Verified in full once per process.
    """
    store, record = objects.store_of(artifact), objects.record_of(artifact)
    if record.row_type is not None:
        raise TypeError(f"{artifact.uri} holds rows of {record.row_type}, not files")
    if storage.is_local(store):
        folder, remedy = Path(artifact.uri, _attempt(record)), f"remove {artifact.uri} to make it anew"
    else:
        folder = cache_folder() / "trees" / artifact.digest
        remedy = f"remove {folder} to fetch it again"
        if not folder.exists():
            _download(store, record, folder)
    if (str(folder), artifact.digest) not in _verified:
        _verify(record, folder, remedy)
        _verified.add((str(folder), artifact.digest))
    return folder


def _files(folder: Path) -> dict[str, Path]:
    """By path relative to the folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a model directory")
    inside = folder.resolve()
    sources: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not (path.is_file() and path.resolve().is_relative_to(inside)):
            raise UserError(f"{path} is a link out of {folder} or to no file; put the file itself there")
        if path.is_dir():
            continue
        if not path.is_file():
            raise UserError(f"{path} is no plain file; remove it")
        if path.suffix in PICKLED:
            raise UserError(f"{path} is a pickle, which runs code when it is loaded; save the model as safetensors")
        sources[path.relative_to(folder).as_posix()] = path
    if not sources:
        raise UserError(f"{folder} is empty; give a model directory")
    return sources


def _attempt(record: ObjectRecord) -> str:
    """The folder that all files of a tree share: ``data/{attempt}``."""
    return "/".join(record.files[0].path.split("/")[:2])


def cache_folder() -> Path:
    """Where this machine keeps what it can fetch or make again."""
    return Path(os.environ.get("RATCHET_CACHE", "~/.cache/ratchet")).expanduser()


def _download(store: str, record: ObjectRecord, folder: Path) -> None:
    """All files beside ``folder``, verified, then moved into place at once; another process may be first."""
    aside = folder.with_name(f".{folder.name}.{uuid4().hex}")
    _require_space(folder.parent, sum(file.size for file in record.files))
    try:
        for file in record.files:
            to = aside / _within(record, file)
            to.parent.mkdir(parents=True, exist_ok=True)
            storage.download(store, f"{folder_of(record.kind, record.recipe)}/{file.path}", to)
        address = f"{storage.canonical(store)}/{folder_of(record.kind, record.recipe)}"
        _verify(record, aside, f"if it stays, remove {address} to make it anew")
        try:
            aside.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _require_space(cache: Path, need: int) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
    except OSError as error:
        raise UserError(f"cache {cache} cannot be used ({error}); set RATCHET_CACHE to a folder that can") from error
    if free < need:
        raise UserError(f"cache {cache} has {free} bytes free, {need} are needed; free some or set RATCHET_CACHE")


def _verify(record: ObjectRecord, folder: Path, remedy: str) -> None:
    for file in record.files:
        path = folder / _within(record, file)
        objects.verify(file, path, str(path), remedy)


def _within(record: ObjectRecord, file: StoredFile) -> Path:
    return Path(file.path).relative_to(_attempt(record))
