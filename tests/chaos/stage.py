"""Processes on one store, played by threads that stop before each touch of it: one goes on, the others wait."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import PosixPath
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from faults import Effects, Fault, Killed, injected
from fsspec.implementations.local import LocalFileSystem

from infra import listing, objects, storage

R = TypeVar("R")
_acting = threading.local()


class Actor:
    """An operation on the store that goes from one touch to the next when it is told to."""

    def __init__(self, call: Callable[[], object]):
        self.value: object = None
        self.end: BaseException | None = None
        self.before = ""
        """What it stands before: read, list, create, swap, write, copy or remove."""
        self.over = self.hurt = self.touching = False
        self._call, self._fault, self._dead = call, None, False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._play, daemon=True).start()
        self._stopped.acquire()

    def go(self, fault: Fault | None = None) -> None:
        """Do the touch it stands before, with this fault, and go on to the next one or to the end."""
        self._fault, self.hurt = fault, self.hurt or fault not in (None, "deny")
        self._go.release()
        self._stopped.acquire()

    def _play(self) -> None:
        _acting.actor = self
        try:
            self.value = self._call()
        except BaseException as end:  # judged where it was told to go
            self.end = end
        self.over = True
        self._stopped.release()

    def touch(self, what: str, do: Callable[[], R], torn: Callable[[], None], *, denied: R) -> R:
        """In its own thread: wait for the word, and do it as told."""
        if self._dead:
            raise Killed("dead already")
        self.before = what.split()[0]
        self._stopped.release()
        self._go.acquire()
        self._dead = self._fault == "kill"
        self.touching = True
        try:
            return Effects({1: self._fault} if self._fault else {}).effect(what, do, torn, denied=denied)
        finally:
            self.touching = False


class _Stage(Effects):
    """What an actor does to the store waits for its turn; what anybody else does is done."""

    def effect(self, what: str, do: Callable[[], R], torn: Callable[[], None], *, denied: R) -> R:
        actor: Actor | None = getattr(_acting, "actor", None)
        return do() if actor is None else actor.touch(what, do, torn, denied=denied)


@contextmanager
def stage() -> Iterator[None]:
    """Actors stop, from here on."""

    def waits(read: Callable[..., Any], what: str = "read") -> Callable[..., Any]:
        def reading(*args: Any, **more: Any) -> Any:
            actor: Actor | None = getattr(_acting, "actor", None)
            if actor is None or actor.touching:  # it may hold a lock
                return read(*args, **more)
            held: list[Any] = []
            actor.touch(what, lambda: held.append(read(*args, **more)), lambda: None, denied=None)
            return held[0]

        return reading

    with injected(_Stage()), pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "time", SimpleNamespace(sleep=lambda seconds: None))  # who goes on when is told here
        ticks = count()  # who waits for something looks for it twenty times, and every history repeats itself
        patch.setattr(objects, "time", SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: next(ticks)))
        patch.setattr(objects, "datetime", SimpleNamespace(now=lambda tz: datetime.fromtimestamp(next(ticks), tz)))
        patch.setattr(objects, "uuid4", lambda: SimpleNamespace(hex=f"{next(ticks):032x}"))
        for name in ("cat_file", "info", "ls"):
            patch.setattr(LocalFileSystem, name, waits(getattr(LocalFileSystem, name)))
        patch.setattr(PosixPath, "read_bytes", waits(PosixPath.read_bytes))
        on_disk = listing._on_disk  # pyright: ignore[reportPrivateUsage]
        patch.setattr(listing, "_on_disk", waits(lambda root, folder: list(on_disk(root, folder)), "list"))
        yield
