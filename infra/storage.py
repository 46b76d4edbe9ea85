"""Bytes in a store: a path, ``memory://`` or ``s3://``. Reads, writes, and the two conditional writes that the rest
stands on: create, and compare-and-swap.

fsspec does the transport. What it does not promise on every file system is here: that a create is exclusive and never
half visible, that a swap has one winner, and that what goes wrong is told in one line.
"""

import errno
import posixpath
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from alignment.errors import UserError
from infra import conditional
from infra.file_systems import explained, open_store, parse


def canonical(store: str) -> str:
    """The store's one address: an absolute path, ``memory://…`` or ``s3://…``, without a slash at the end."""
    protocol, root = parse(store)
    return root if protocol == "file" else f"{protocol}://{root.lstrip('/')}".rstrip("/")


def is_local(store: str) -> bool:
    """Whether the store is a folder of this machine, so that its files can be opened where they are."""
    return parse(store)[0] == "file"


def read(store: str, path: str) -> bytes | None:
    """The whole content; None when there is no such file."""
    fs, root = open_store(store)
    with explained(store, path):
        try:
            if is_local(store):
                return Path(root, path).read_bytes()
            return fs.cat_file(f"{root}/{path}")
        except FileNotFoundError:
            return None


def read_version(store: str, path: str) -> tuple[bytes, str] | None:
    """Content and the version to hand to ``swap``; None when there is no such file."""
    fs, root = open_store(store)
    etag = None
    if parse(store)[0] == "s3":  # the ETag before the content: a change in between can then only make the swap lose
        with explained(store, path):
            etag = conditional.s3_etag(fs, f"{root}/{path}")
    data = read(store, path)
    return None if data is None else (data, etag or conditional.version_of(data))


def size(store: str, path: str) -> int | None:
    """Bytes; None when there is no such file."""
    fs, root = open_store(store)
    with explained(store, path):
        try:
            return fs.info(f"{root}/{path}")["size"]
        except FileNotFoundError:
            return None


def folders(store: str, path: str) -> list[str]:
    """Names of what lies directly below, sorted, without what a killed writer left; empty when there is nothing."""
    fs, root = open_store(store)
    with explained(store, path):
        try:
            entries = fs.ls(f"{root}/{path}", detail=False)
        except FileNotFoundError:
            return []
    names = {posixpath.basename(entry.rstrip("/")) for entry in entries}
    return sorted(name for name in names if not name.startswith("."))


def write_all(store: str, folder: str, sources: Mapping[str, bytes | Path]) -> None:
    """Write files under a folder that nobody else writes to, durably; nothing of it stays when the disk is full."""
    fs, root = open_store(store)
    need = sum(len(source) if isinstance(source, bytes) else source.stat().st_size for source in sources.values())
    with explained(store, folder, need):
        try:
            for name, source in sources.items():
                path = f"{root}/{folder}/{name}"
                fs.put_file(str(source), path) if isinstance(source, Path) else fs.pipe_file(path, source)
                if is_local(store):
                    conditional.sync(Path(path), Path(root))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                with suppress(OSError):
                    fs.rm(f"{root}/{folder}", recursive=True)
            raise


def download(store: str, path: str, to: Path) -> None:
    """Copy one file of the store into a local file."""
    fs, root = open_store(store)
    with explained(store, path):
        fs.get_file(f"{root}/{path}", str(to))


def remove(store: str, path: str) -> None:
    """Remove a file or a folder with all below it; nothing when it is not there."""
    fs, root = open_store(store)
    with explained(store, path), suppress(FileNotFoundError):
        fs.rm(f"{root}/{path}", recursive=True)


def create(store: str, path: str, data: bytes) -> bool:
    """Write a file that must not exist. False when one is there, or another writer is at it.

    All or nothing on every store, also when the process is killed. Over a network False can mean that this very call
    won and its answer was lost, so read back before concluding. At least one byte: an empty file proves nothing.
    """
    if not data:
        raise ValueError(f"{path}: nothing to write")
    fs, root = open_store(store)
    with explained(store, path, len(data)):
        match parse(store)[0]:
            case "file":
                return conditional.create_local(Path(root, path), data, Path(root))
            case "memory":
                return conditional.create_memory(fs, f"{root}/{path}", data)
            case _:
                return conditional.create_s3(fs, f"{root}/{path}", data)


def swap(store: str, path: str, data: bytes, version: str) -> bool:
    """Replace a file if its content is still the one ``read_version`` gave. False when it is not; see ``create``."""
    fs, root = open_store(store)
    with explained(store, path, len(data)):
        match parse(store)[0]:
            case "file":
                return conditional.swap_local(Path(root, path), data, version, Path(root))
            case "memory":
                return conditional.swap_memory(fs, f"{root}/{path}", data, version)
            case _:
                return conditional.swap_s3(fs, f"{root}/{path}", data, version)


def put_once(store: str, path: str, data: bytes) -> bool:
    """Make sure that something is stored under ``path``, for good. True when it is ``data``.

    True also when an equal writer was first, or when our own answer was lost on the way: writers that must tell
    themselves apart put a nonce in. False when other bytes are there; they stay.
    """
    for wait in (0, 0.05, 0.1, 0.2, 0.4):
        time.sleep(wait)
        try:
            if create(store, path, data):
                return True
        except UserError:
            if read(store, path) == data:  # it arrived, and the answer did not
                return True
            raise
        if (found := read(store, path)) is not None:
            return found == data
    raise UserError(
        f"store {store}: {path} can neither be created nor read; run again, and check the store if it stays"
    )


def read_bytes(store: str, path: str) -> bytes:
    """The whole content. UserError when there is no such file."""
    data = read(store, path)
    if data is None:
        raise UserError(f"store {store}: there is no {path}; check the store's address and the name")
    return data
