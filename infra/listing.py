"""Many files of a store at once: listed with sizes and times, read side by side, digested in blocks, removed."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

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
        files = fs.find(f"{root}/{folder}".rstrip("/"), detail=True)
    found = [Found(path.removeprefix(f"{root}/"), info["size"], _modified(info)) for path, info in files.items()]
    return sorted(found)


def _modified(info: dict[str, Any]) -> float:
    """Each file system names it in its own way: S3, a disk, memory."""
    when = info.get("LastModified") or info.get("mtime") or info["created"]
    return when.timestamp() if isinstance(when, datetime) else float(when)


def read_all(store: str, paths: Sequence[str]) -> list[bytes | None]:
    """Content of small files, in order; None for one that is not there. S3 is asked for many at a time."""
    fs, root = open_store(store)
    places = [f"{root}/{path}" for path in paths]
    if parse(store)[0] == "s3" and places:
        with explained(store, paths[0]):
            answers = fs.cat(places, on_error="return")
    else:
        answers = {place: _answer(fs, place) for place in places}
    read: list[bytes | None] = []
    for path, place in zip(paths, places, strict=True):
        answer = answers[place]
        with explained(store, path):
            if isinstance(answer, BaseException) and not isinstance(answer, FileNotFoundError):
                raise answer
        read.append(None if isinstance(answer, BaseException) else answer)
    return read


def _answer(fs: Any, place: str) -> bytes | OSError:
    try:
        return fs.cat_file(place)
    except OSError as error:
        return error


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
