"""Objects that are directories: models as safetensors, JSON and tokenizer files. Pickles run code when they are
loaded, so none is ever stored."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from uuid import uuid4

from pydantic import JsonValue

from alignment.errors import UserError
from alignment.types import Artifact, Kind, digest_of
from infra import objects, storage
from infra.names import is_plain, shown
from infra.objects import Asked, ObjectRecord, Parents
from infra.recipes import folder_of
from infra.stored_files import StoredFile, sha256_of, verify
from infra.tree_cache import room_for, tree_folder

PICKLED = frozenset(
    {".bin", ".pt", ".pt2", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".mar", ".zip"}
)
"""Formats that are pickles or can hold them."""
_ZIP, _PICKLE = b"PK\x03\x04", re.compile(rb"\x80[\x02-\x05]")

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
    digest = digest_of({name: sha256_of(source) for name, source in sources.items()})
    if found := objects.find(store, kind, recipe):
        return objects.same(found, digest, store, f"{kind}/{recipe}")
    files = objects.write_files(store, kind, recipe, sources)
    return objects.commit(store, kind, recipe, digest, files, parents=parents, facts=facts, asked=asked)


def fetch_tree(artifact: Artifact) -> Path:
    """A folder of this machine that holds the files; not to be written to.

    On a local store it is the object's own, elsewhere a copy in ``RATCHET_CACHE`` (default ``~/.cache/ratchet``), which
    stays there while this process uses it: ``tree_cache`` says for how long. Verified in full once per process.
    """
    store, record = objects.store_of(artifact), objects.record_of(artifact)
    if record.row_type is not None:
        raise TypeError(f"{artifact.uri} holds rows of {record.row_type}, not files")
    _check_tree(store, record)
    if storage.is_local(store):
        folder, remedy = Path(artifact.uri, _attempt(record)), f"remove {artifact.uri} to make it anew"
    else:
        folder = tree_folder(record.digest)
        remedy = f"remove {folder} to fetch it again"
        if not folder.exists():
            with room_for(sum(file.size for file in record.files), artifact.uri):
                if not folder.exists():  # another process may have fetched it while this one waited
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
        check_no_pickle(path)
        sources[_plain(path, folder)] = path
    if not sources:
        raise UserError(f"{folder} is empty; give a model directory")
    return sources


def check_no_pickle(path: Path) -> None:
    """UserError for a pickle, or an archive that can hold one, whatever it is called."""
    with path.open("rb") as file:
        begins = file.read(9)
    # the length of a safetensors header may happen to read as a pickle's first bytes; its brace does not
    disguised = begins.startswith(_ZIP) or (_PICKLE.match(begins) and begins[8:] != b"{")
    if path.suffix.lower() in PICKLED or disguised:
        raise UserError(f"{path} is a pickle, which runs code when it is loaded; save the model as safetensors")


def _plain(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    if not is_plain(name):
        raise UserError(f"{folder} holds {shown(name)}, which is no plain file name; give it one of ASCII letters")
    return name


def _check_tree(store: str, record: ObjectRecord) -> None:
    """UserError for a record that is not of one tree's files, or not of those that its digest is of: someone else may
    have written it."""
    attempt = _attempt(record)
    names = {file.path.removeprefix(f"{attempt}/"): file.sha256 for file in record.files}
    where = f"store {store}: the record of {record.kind}/{record.recipe}"
    if pickles := [name for name in names if PurePosixPath(name).suffix.lower() in PICKLED]:
        raise UserError(f"{where} lists a pickle ({pickles[0]}), which runs code when it is loaded; remove that object")
    if digest_of(names) != record.digest or not all(file.path.startswith(f"{attempt}/") for file in record.files):
        raise UserError(f"{where} is damaged: its files are not those of digest {record.digest}; remove that object")


def _attempt(record: ObjectRecord) -> str:
    """The folder that all files of a tree share: ``data/{attempt}``."""
    return "/".join(record.files[0].path.split("/")[:2]) if record.files else ""


def _download(store: str, record: ObjectRecord, folder: Path) -> None:
    """All files beside ``folder``, verified, then moved into place at once; another process may be first."""
    aside = folder.with_name(f".{folder.name}.{uuid4().hex}")
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


def _verify(record: ObjectRecord, folder: Path, remedy: str) -> None:
    for file in record.files:
        path = folder / _within(record, file)
        verify(file, path, str(path), remedy)


def _within(record: ObjectRecord, file: StoredFile) -> Path:
    return Path(file.path).relative_to(_attempt(record))
