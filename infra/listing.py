"""Many files of a store at once: listed with sizes and times, read side by side, digested in blocks, removed."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from infra import storage
from infra.file_systems import explained, open_store, parse

BLOCK = 16 * 2**20
"""Bytes of a file that are held at a time: models are larger than what several readers have memory for."""
PER_REQUEST = 1000
"""Keys that S3 takes in one request to delete."""


class Found(NamedTuple):
    """A file that is there."""

    path: str
    """Relative to the store."""
    size: int
    """Bytes."""
    modified: float
    """POSIX seconds, by the clock of whoever keeps the store."""


def listing(store: str, folder: str) -> list[Found]:
    """All files below a folder, hidden ones too, by path. Empty when there is nothing; UserError for no such bucket."""
    fs, root = open_store(store)
    with explained(store, folder):
        if parse(store)[0] == "file":
            return sorted(_on_disk(root, folder))
        there = fs.find(f"{root}/{folder}", detail=True)
    # a folder that was empty when S3 was asked, and is not any more, is given as if it were a file
    files = {path: info for path, info in there.items() if info["type"] != "directory"}
    return sorted(Found(path.removeprefix(f"{root}/"), i["size"], _modified(i)) for path, i in files.items())


def _on_disk(root: str, folder: str) -> Iterator[Found]:
    """As ``find``, at a fifth of its time. What vanishes meanwhile is not there."""
    waiting = [folder]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(f"{root}/{inside}") as entries:
                for entry in entries:
                    path = f"{inside}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                        continue
                    with suppress(FileNotFoundError):
                        told = entry.stat()
                        yield Found(path, told.st_size, told.st_mtime)
        except FileNotFoundError:
            continue


def _modified(info: dict[str, Any]) -> float:
    """S3 and memory name it each in its own way."""
    when = info.get("LastModified") or info["created"]
    return when.timestamp() if isinstance(when, datetime) else float(when)


def read_all(store: str, paths: Sequence[str]) -> list[bytes | None]:
    """Content of small files, in order; None for one that is not there. S3 is asked for many at a time."""
    if parse(store)[0] != "s3":
        return [storage.read(store, path) for path in paths]
    fs, root = open_store(store)
    with explained(store, paths[0] if paths else ""):
        answers = fs.cat([f"{root}/{path}" for path in paths], on_error="return") if paths else {}
    return [_content(store, path, answers[f"{root}/{path}"]) for path in paths]


def _content(store: str, path: str, answer: bytes | Exception) -> bytes | None:
    with explained(store, path):
        if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
            raise answer
    return None if isinstance(answer, Exception) else answer


def sha256_at(store: str, path: str, size: int) -> str | None:
    """SHA-256 of a file of ``size`` bytes, hex; None when it is not there."""
    fs, root = open_store(store)
    digest = hashlib.sha256()
    with explained(store, path):
        try:
            for start in range(0, size, BLOCK):
                digest.update(fs.cat_file(f"{root}/{path}", start=start, end=min(start + BLOCK, size)))
        except FileNotFoundError:
            return None
    return digest.hexdigest()


def remove_all(store: str, paths: Sequence[str]) -> None:
    """Remove files, those that are there. Never a folder, in which another writer may be at work."""
    fs, root = open_store(store)
    for start in range(0, len(paths), PER_REQUEST):
        part = paths[start : start + PER_REQUEST]
        with explained(store, part[0]):
            if parse(store)[0] == "s3":
                _delete(fs, [f"{root}/{path}" for path in part])
                continue
            for path in part:
                with suppress(FileNotFoundError):
                    fs.rm_file(f"{root}/{path}")


def _delete(fs: Any, places: Sequence[str]) -> None:
    """One request; unlike the file system's own, it tells of a file that the server would not remove."""
    bucket = places[0].split("/")[0]
    keys = [{"Key": place.removeprefix(f"{bucket}/")} for place in places]
    answer = fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
    if refused := answer.get("Errors"):
        raise OSError(f"{refused[0]['Key']} was not removed: {refused[0].get('Message') or refused[0].get('Code')}")


def remove_empty(store: str, folders: Iterable[str]) -> None:
    """Remove those folders of a disk that are empty, inner ones first; elsewhere there are none."""
    protocol, root = parse(store)
    if protocol == "file":
        for folder in sorted(folders, key=len, reverse=True):
            with suppress(OSError):  # not empty, or gone
                os.rmdir(f"{root}/{folder}")
