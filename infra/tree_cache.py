"""This machine's copies of models, by digest, kept within a size.

Every process holds a shared lock on the trees it asked for last; a tree goes only when nobody holds it. Locks are of
the kernel's: they end with the process, however it ends.
"""

import errno
import fcntl
import os
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from alignment.errors import UserError

HELD = 8
"""Trees that a process holds: more than a round's policies and reward models, and less than those of a long run."""
LOCKLESS = (errno.ENOLCK, errno.EOPNOTSUPP)
"""What network file systems without locks answer; only a limit needs them."""
_UNITS = {"": 1} | {
    f"{letter}{unit}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for unit, base in (("B", 1000), ("IB", 1024))
}
_holding = threading.Lock()
_held: OrderedDict[Path, IO[bytes]] = OrderedDict()


def cache_folder() -> Path:
    """Where this machine keeps what it can fetch or make again."""
    return Path(os.environ.get("RATCHET_CACHE", "~/.cache/ratchet")).expanduser()


def cache_limit() -> int | None:
    """Bytes that fetched models may take, from ``RATCHET_CACHE_LIMIT``: a number, or one with a unit as ``50GB`` or
    ``50GiB``. None where it is not set."""
    told = os.environ.get("RATCHET_CACHE_LIMIT", "").strip()
    if not told:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", told)
    if found is None or found[2].upper() not in _UNITS:
        raise UserError(f"RATCHET_CACHE_LIMIT = {told!r}: give bytes, or a size such as 50GB or 50GiB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def tree_folder(digest: str) -> Path:
    """Where the tree of this digest lies, or would; from now on nobody removes it while this process holds it."""
    try:
        _hold(_lock_file(digest))
    except OSError as error:
        if cache_limit() is not None or error.errno not in LOCKLESS:
            raise _unusable(error) from error
    return cache_folder() / "trees" / digest


@contextmanager
def room_for(need: int, what: str) -> Iterator[None]:
    """Room for a tree of ``need`` bytes. Under a limit, one process at a time fills the cache, and trees that nobody
    holds go first, the longest unused first.

    Raises UserError where the disk or the limit is too small, or where all that would have to go is in use.
    """
    limit = cache_limit()
    if limit is None:
        _require_disk(need)
        yield
        return
    with _locked(_locks() / "room", fcntl.LOCK_EX):
        _make_room(limit, need, what)
        _require_disk(need)
        yield


def _make_room(limit: int, need: int, what: str) -> None:
    cache = cache_folder()
    if need > limit:
        raise UserError(f"{what} takes {need} bytes, and RATCHET_CACHE_LIMIT is {limit}: raise it")
    sizes = _sizes(cache / "trees")
    for digest in sorted(sizes, key=_last_used):
        if sum(sizes.values()) + need <= limit:
            return
        if _removed(digest):
            sizes.pop(digest)
    if (left := sum(sizes.values())) + need > limit:
        raise UserError(
            f"{what} takes {need} bytes; cache {cache} has {left} bytes of models that running processes use, and "
            f"RATCHET_CACHE_LIMIT is {limit}: raise it, or let one of them end"
        )


def _sizes(trees: Path) -> dict[str, int]:
    """Bytes by digest, with what killed downloads left (``.digest.nonce``)."""
    sizes: dict[str, int] = {}
    for entry in trees.iterdir() if trees.is_dir() else ():
        digest = entry.name.lstrip(".").partition(".")[0]
        sizes[digest] = sizes.get(digest, 0) + sum(map(_bytes, entry.rglob("*")))
    return sizes


def _bytes(path: Path) -> int:
    """0 for folders, and for what a process without a limit has just moved into place."""
    with suppress(FileNotFoundError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def _removed(digest: str) -> bool:
    """Whether nobody held the tree, so that it is gone."""
    trees = cache_folder() / "trees"
    try:
        with _locked(_lock_file(digest), fcntl.LOCK_EX | fcntl.LOCK_NB):
            for entry in [trees / digest, *trees.glob(f".{digest}.*")]:
                shutil.rmtree(entry, ignore_errors=True)
    except BlockingIOError:
        return False
    return not (trees / digest).exists()


def _last_used(digest: str) -> float:
    with suppress(FileNotFoundError):
        return _lock_file(digest).stat().st_mtime
    return 0.0


def _hold(lock: Path) -> None:
    """Hold a tree, and let the one go that this process asked for longest ago."""
    with _holding:
        if lock not in _held:
            file = lock.open("ab")
            fcntl.flock(file, fcntl.LOCK_SH)
            _held[lock] = file
        _held.move_to_end(lock)
        now = time.time_ns()  # finer than what the kernel would note by itself
        os.utime(lock, ns=(now, now))
        while len(_held) > HELD:
            _held.popitem(last=False)[1].close()


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, how)
        yield


def _lock_file(digest: str) -> Path:
    return _locks() / f"{digest}.lock"


def _locks() -> Path:
    """Beside the trees, so that a lock outlives its tree: one that is waited for must not be another's file."""
    folder = cache_folder() / "tree-locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(error) from error
    return folder


def _require_disk(need: int) -> None:
    trees = cache_folder() / "trees"
    try:
        trees.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(trees).free
    except OSError as error:
        raise _unusable(error) from error
    if free < need:
        raise UserError(f"cache {trees} has {free} bytes free, {need} are needed; free some or set RATCHET_CACHE")


def _unusable(error: OSError) -> UserError:
    lacks = "its file system has no locks" if error.errno in LOCKLESS else str(error)
    return UserError(f"cache {cache_folder()} cannot be used ({lacks}); set RATCHET_CACHE to a folder that can")
