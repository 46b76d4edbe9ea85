"""What a record says of a file, and whether that is what is there: everything read is held to size and SHA-256."""

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, NonNegativeInt, StringConstraints

from alignment.errors import UserError
from alignment.types import Record
from infra.names import is_plain, shown


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
