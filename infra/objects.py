"""Objects: what a recipe made, at ``{store}/objects/{kind}/{recipe}/``.

Data go first, under a key of this attempt alone; then one small ``record.json`` is created once, which is the commit.
Readers believe only records, so a killed writer leaves litter and never half an object. Equal work by several writers
is one object; other work under the same recipe is a ``Conflict``. Everything read is held to size and SHA-256.
"""

import hashlib
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Protocol, TypeVar
from uuid import uuid4

from pydantic import AfterValidator, JsonValue, NonNegativeInt, StringConstraints, ValidationError

from alignment.errors import Conflict, UserError
from alignment.types import Artifact, Kind, Record, canonical_json, digest_of
from infra import storage
from infra.names import is_plain, shown
from infra.recipes import folder_of

Facts = Mapping[str, JsonValue]
Parents = Sequence[Artifact | str]
"""Artifacts, or their ``kind/recipe``."""

Asked = Mapping[str, JsonValue] | None
Read = TypeVar("Read", bound=Record)


class HasDigest(Protocol):
    @property
    def digest(self) -> str: ...


Digested = TypeVar("Digested", bound=HasDigest)


def _inside(path: str) -> str:
    """A record may be someone else's: its paths must not lead out of the object, or out of the cache."""
    if not is_plain(path):
        raise ValueError(f"{shown(path)} is no plain name of a file within its object")
    return path


Recipe = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Part of paths too, so a record that someone else wrote may hold nothing else there."""


class StoredFile(Record):
    path: Annotated[str, AfterValidator(_inside)]
    """Relative to the object's folder."""
    size: NonNegativeInt
    """Bytes."""
    sha256: Sha256


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


def record_of(artifact: Artifact) -> ObjectRecord:
    """Its record. UserError when it is gone, or describes other data than this artifact's digest."""
    record = read_record(store_of(artifact), artifact.kind, artifact.recipe)
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


def verify(file: StoredFile, source: bytes | Path | None, at: str, remedy: str) -> None:
    """UserError when the bytes, or the file on this machine, are not what the record says; None is a missing file."""
    if source is None or (isinstance(source, Path) and not source.is_file()):
        differs = difference(file, None, None)
    else:
        size = _size(source)
        differs = difference(file, size, sha256_of(source) if size == file.size else None)
    if differs is not None:
        expected, found = differs
        raise UserError(f"{at} was changed since it was committed (expected {expected}, found {found}); {remedy}")


def difference(file: StoredFile, size: int | None, sha256: str | None) -> tuple[str, str] | None:
    """What the record says of a file and what was found, where these differ; a file without a size is missing, and
    one of another size needs no SHA-256."""
    if size is None:
        return f"{file.size} bytes", "nothing"
    if size != file.size:
        return f"{file.size} bytes", f"{size} bytes"
    return None if sha256 == file.sha256 else (f"sha256 {file.sha256}", f"sha256 {sha256}")


def sha256_of(source: bytes | Path) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(path: str, source: bytes | Path) -> StoredFile:
    """What a record says of a file."""
    return StoredFile(path=path, size=_size(source), sha256=sha256_of(source))


def _size(source: bytes | Path) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


@cache
def code_version() -> str:
    """The installed version, with the commit where the code runs from a checkout."""
    try:
        version = metadata.version("ratchet-align")
    except metadata.PackageNotFoundError:
        version = "not installed"
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return version
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(describe, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version} at {commit}"
