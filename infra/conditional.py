"""The two conditional writes, on each file system: create (exclusive, never half visible) and swap (one winner).

fsspec has no such promise: its local ``open("xb")`` shows a file before it is whole, its memory file system checks and
then writes, and S3 stores differ in how they answer.
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

SINGLE_PART = 2 * 2**30
"""Bytes. One PUT below twice this: some stores ignore the condition when a multipart upload completes."""

_memory = threading.RLock()


def version_of(data: bytes) -> str:
    """What ``swap_local`` and ``swap_memory`` compare; S3 has ETags."""
    return hashlib.sha256(data).hexdigest()


def create_local(path: Path, data: bytes, root: Path) -> bool:
    with _aside(path, data) as aside:
        try:
            os.link(aside, path)  # unlike a rename, refuses when the name is taken
        except FileExistsError:
            return False
        sync(path, root)
        return True


def swap_local(path: Path, data: bytes, version: str, root: Path) -> bool:
    with path.with_name(f".{path.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists() or version_of(path.read_bytes()) != version:
            return False
        with _aside(path, data) as aside:
            os.replace(aside, path)
        sync(path, root)
        return True


def sync(path: Path, root: Path) -> None:
    """Put a file, and the entries of the folders above it up to ``root``, on the disk itself."""
    for place in (path, *path.parents):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if place == root:
            return


@contextmanager
def _aside(path: Path, data: bytes) -> Iterator[Path]:
    """The data in a synced file beside ``path``, to be linked or moved into place; gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def create_memory(fs: Any, path: str, data: bytes) -> bool:
    with _memory:
        if fs.exists(path):
            return False
        fs.pipe_file(path, data)
        return True


def swap_memory(fs: Any, path: str, data: bytes, version: str) -> bool:
    with _memory:
        if not fs.exists(path) or version_of(fs.cat_file(path)) != version:
            return False
        fs.pipe_file(path, data)
        return True


def create_s3(fs: Any, path: str, data: bytes) -> bool:
    return _put_if(fs, path, data, mode="create")


def swap_s3(fs: Any, path: str, data: bytes, etag: str) -> bool:
    if _put_if(fs, path, data, IfMatch=etag):
        return True
    if s3_etag(fs, path) != etag:
        return False
    return _put_if(fs, path, data, IfMatch=etag.strip('"'))  # some servers take only the bare form


def s3_etag(fs: Any, path: str) -> str | None:
    """None when there is no such object."""
    try:
        return fs.info(path)["ETag"]
    except FileNotFoundError:
        return None


def answer_of(error: BaseException) -> dict[str, Any]:
    """What an S3 server answered; s3fs keeps it as the cause of its own error."""
    return getattr(error.__cause__, "response", None) or {}


def _put_if(fs: Any, path: str, data: bytes, **condition: str) -> bool:
    """One conditional PUT. False when the condition failed (412), or another writer was at it (409)."""
    try:
        fs.pipe_file(path, data, chunksize=SINGLE_PART, **condition)
    except FileExistsError:
        return False
    except OSError as error:  # a server that does not name the failed condition comes out as EINVAL
        status = answer_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in (409, 412) or (status == 404 and "IfMatch" in condition and s3_etag(fs, path) is None):
            return False
        raise
    return True
