"""Objects: what a recipe made, at ``{store}/objects/{kind}/{recipe}/``.

Data go first, under a key of this attempt alone; then one small ``record.json`` is created once, which is the commit.
Readers believe only records, so a killed writer leaves litter and never half an object. Equal work by several writers
is one object; other work under the same recipe is a ``Conflict``. Everything read is held to size and SHA-256.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar
from uuid import uuid4

from pydantic import JsonValue, ValidationError

from alignment.errors import Conflict, UserError
from alignment.types import Artifact, Kind, Record, canonical_json, digest_of
from infra import storage
from infra.code_version import code_version
from infra.names import is_plain, shown
from infra.recipes import folder_of
from infra.stored_files import Recipe, Sha256, StoredFile, described

Facts = Mapping[str, JsonValue]
Parents = Sequence[Artifact | str]
"""Artifacts, or their ``kind/recipe``."""

Asked = Mapping[str, JsonValue] | None
Read = TypeVar("Read", bound=Record)


PUT_BACK_SECONDS = 20.0
"""How long a sweep may take to put back a record that it took away in the moment its object was named."""


class HasDigest(Protocol):
    @property
    def digest(self) -> str: ...


Digested = TypeVar("Digested", bound=HasDigest)


class ObjectRecord(Record):
    """``record.json``: that an object exists, what it holds and how it came about."""

    kind: Kind
    recipe: Recipe
    digest: Sha256
    parents: tuple[str, ...]
    facts: Facts
    row_type: str | None = None
    """None for a directory of files."""
    rows: int | None = None
    files: tuple[StoredFile, ...]
    asked: Asked = None
    """What the recipe is the digest of, for people."""
    created: str
    code: str


def store_of(artifact: Artifact) -> str:
    return artifact.uri.removesuffix("/" + folder_of(artifact.kind, artifact.recipe))


def read_record(store: str, kind: Kind, recipe: str) -> ObjectRecord | None:
    """None when no such object was committed."""
    path = f"{folder_of(kind, recipe)}/record.json"
    data = storage.read(store, path)
    if data is None:
        return None
    record = parsed(ObjectRecord, store, path, data)
    if (record.kind, record.recipe) != (kind, recipe):
        other = f"{record.kind}/{record.recipe}"
        raise UserError(f"store {store}: {path} is the record of {other}, not of {kind}/{recipe}; remove it")
    return record


def find(store: str, kind: Kind, recipe: str) -> Artifact | None:
    """The committed object of a recipe, if there is one."""
    record = read_record(store, kind, recipe)
    return None if record is None else artifact_of(store, record)


def await_record(store: str, kind: Kind, recipe: str) -> ObjectRecord | None:
    """The record of an object that something refers to, so that one that is missing may be about to be put back.

    None when it was not there for ``PUT_BACK_SECONDS``.
    """
    deadline = time.monotonic() + PUT_BACK_SECONDS
    while (record := read_record(store, kind, recipe)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return record


def record_of(artifact: Artifact) -> ObjectRecord:
    """Its record. UserError when it is gone, or describes other data than this artifact's digest."""
    record = await_record(store_of(artifact), artifact.kind, artifact.recipe)
    if record is None or record.digest != artifact.digest:
        found = "nothing" if record is None else f"digest {record.digest}"
        raise UserError(f"{artifact.uri}: expected digest {artifact.digest}, found {found}; run again to make it anew")
    return record


def parsed(type_: type[Read], store: str, path: str, data: bytes) -> Read:
    try:
        return type_.model_validate_json(data)
    except ValidationError as error:
        told = error.errors()[0]
        where = ".".join(str(part) for part in told["loc"])
        raise UserError(
            f"store {store}: {path} is damaged ({where} {told['msg']}); remove it to make it anew"
        ) from error


def artifact_of(store: str, record: ObjectRecord) -> Artifact:
    return Artifact(
        kind=record.kind,
        uri=f"{storage.canonical(store)}/{folder_of(record.kind, record.recipe)}",
        recipe=record.recipe,
        digest=record.digest,
        parents=record.parents,
        facts=record.facts,
    )


def write_files(store: str, kind: Kind, recipe: str, sources: Mapping[str, bytes | Path]) -> tuple[StoredFile, ...]:
    """Write data files under a key of this attempt alone, and see that they arrived."""
    attempt = f"data/{uuid4().hex}"
    if odd := [name for name in sources if not is_plain(name)]:
        raise UserError(f"{kind}/{recipe}: {shown(odd[0])} is no plain file name; give it one of ASCII letters")
    storage.write_all(store, f"{folder_of(kind, recipe)}/{attempt}", sources)
    files = tuple(described(f"{attempt}/{name}", source) for name, source in sorted(sources.items()))
    check_sizes(store, kind, recipe, files)
    return files


def check_sizes(store: str, kind: Kind, recipe: str, files: Iterable[StoredFile]) -> None:
    """UserError when a file is missing or cut, which a commit must not claim."""
    for file in files:
        path = f"{folder_of(kind, recipe)}/{file.path}"
        if (found := storage.size(store, path)) != file.size:
            raise UserError(f"store {store}: {path} has {found} bytes, {file.size} were written; run again")


def commit(
    store: str,
    kind: Kind,
    recipe: str,
    digest: str,
    files: tuple[StoredFile, ...],
    *,
    parents: Parents,
    facts: Facts,
    asked: Asked,
    row_type: str | None = None,
    rows: int | None = None,
) -> Artifact:
    """Create the record: from here on the object exists."""
    if asked is not None and digest_of(asked) != recipe:
        raise ValueError(f"{kind}/{recipe}: is not the recipe of what was asked ({digest_of(asked)})")
    record = ObjectRecord(
        kind=kind,
        recipe=recipe,
        digest=digest,
        parents=tuple(p if isinstance(p, str) else f"{p.kind}/{p.recipe}" for p in parents),
        facts=facts,
        row_type=row_type,
        rows=rows,
        files=files,
        asked=asked,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code=code_version(),
    )
    if storage.put_once(store, f"{folder_of(kind, recipe)}/record.json", record_json(record)):
        return artifact_of(store, record)
    return same(find(store, kind, recipe), digest, store, f"{kind}/{recipe}")


def same(found: Digested | None, digest: str, store: str, what: str) -> Digested:
    """What another writer committed, if it is equal work. Conflict when it is not."""
    if found is None:
        raise UserError(f"store {store}: {what} was committed by another writer and is gone; run again")
    if found.digest != digest:
        raise Conflict(
            f"store {store}: {what} holds digest {found.digest}, this run made {digest}: two runs made it at "
            "once and their engines do not repeat themselves; stop one and run again"
        )
    return found


def record_json(record: Record) -> bytes:
    return canonical_json(record.model_dump(mode="json")).encode()
