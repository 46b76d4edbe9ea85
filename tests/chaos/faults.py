"""Faults at the one place where the store changes: every side effect on a local store is counted, and any of them can
be made to fail, to be slow, to lose its answer or to be the last thing the process does.

The effects are the very calls that ``storage`` makes: an exclusive create, a swap, a file written or copied, a removal.
Reads are no effects. Nothing in the source knows of this.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from fsspec.implementations.local import LocalFileSystem

from infra import conditional

Fault = Literal["kill", "fail", "full", "lose", "deny", "delay"]
"""kill: the process dies in the middle of it, and what it was writing is cut in half. fail: it is refused and changes
nothing. full: the disk is full from here on. lose: it is done, and its answer is an error. deny: it is done, and a
conditional write answers that it lost. delay: it is late."""

R = TypeVar("R")
DELAY = 0.02


class Killed(BaseException):
    """The process died here. No code may live on it: nothing catches a BaseException but to clean up."""


class Effects:
    """Side effects of one process on its store, in order, with the faults that it meets, by number from 1."""

    def __init__(self, faults: Mapping[int, Fault] = {}):
        self.seen: list[str] = []
        self.dead = False
        self.before: Callable[[str], None] = lambda what: None
        """Told of each effect, in its thread, before it happens."""
        self._faults = faults
        self._counting = threading.Lock()
        self._full = False

    def alive(self) -> None:
        """Other threads of a dead process do nothing more."""
        if self.dead:
            raise Killed("dead already")

    def effect(self, what: str, do: Callable[[], R], torn: Callable[[], None], *, denied: R) -> R:
        self.before(what)
        with self._counting:
            self.alive()
            self.seen.append(what)
            fault = self._faults.get(len(self.seen))
            self.dead = fault == "kill"
            self._full = self._full or fault == "full"
        if fault == "kill":
            torn()
            raise Killed(what)
        if self._full and not what.startswith("remove"):
            torn()
            raise OSError(errno.ENOSPC, "No space left on device")
        if fault == "fail":
            raise OSError(errno.EIO, "Input/output error")
        if fault == "delay":
            time.sleep(DELAY)
        answer = do()
        if fault == "lose":
            raise OSError(errno.ECONNRESET, "Connection reset by peer")
        return denied if fault == "deny" else answer


@contextmanager
def injected(effects: Effects) -> Iterator[Effects]:
    """The faults, in place. Power is not cut here, so nothing is synced to the disk."""
    create, swap = conditional.create_local, conditional.swap_local
    put, pipe = LocalFileSystem.put_file, LocalFileSystem.pipe_file
    remove, remove_file = LocalFileSystem.rm, LocalFileSystem.rm_file

    def created(path: Path, data: bytes, root: Path) -> bool:
        what = f"create {path.relative_to(root)}"
        return effects.effect(what, lambda: create(path, data, root), lambda: _litter(path, data), denied=False)

    def swapped(path: Path, data: bytes, version: str, root: Path) -> bool:
        what = f"swap {path.relative_to(root)}"
        return effects.effect(what, lambda: swap(path, data, version, root), lambda: _litter(path, data), denied=False)

    def piped(fs: LocalFileSystem, path: str, value: bytes, **more: Any) -> None:
        half = value[: len(value) // 2]
        effects.effect(
            f"write {path}", lambda: pipe(fs, path, value, **more), lambda: pipe(fs, path, half), denied=None
        )

    def copied(fs: LocalFileSystem, source: str, path: str, **more: Any) -> None:
        half = Path(source).read_bytes()[: Path(source).stat().st_size // 2]
        effects.effect(f"copy {path}", lambda: put(fs, source, path, **more), lambda: pipe(fs, path, half), denied=None)

    def removed(fs: LocalFileSystem, path: str, **more: Any) -> None:
        effects.effect(f"remove {path}", lambda: remove(fs, path, **more), lambda: None, denied=None)

    def file_removed(fs: LocalFileSystem, path: str) -> None:
        effects.effect(f"remove {path}", lambda: remove_file(fs, path), lambda: None, denied=None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditional, "create_local", created)
        patch.setattr(conditional, "swap_local", swapped)
        patch.setattr(LocalFileSystem, "pipe_file", piped)
        patch.setattr(LocalFileSystem, "put_file", copied)
        patch.setattr(LocalFileSystem, "rm", removed)
        patch.setattr(LocalFileSystem, "rm_file", file_removed)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield effects


def _litter(path: Path, data: bytes) -> None:
    """What a writer that dies before it shows its file leaves beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.name}.killed.tmp").write_bytes(data[: len(data) // 2])
