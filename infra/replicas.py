"""Actors of one kind, and work that streams through them."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from alignment.errors import UserError
from infra import ray_pool

if TYPE_CHECKING:
    from ray.actor import ActorHandle

TRIES = 3
"""Processes that one call may bring down before it is given up."""
HANGS = 2
"""Deadlines that one call may pass: a process can hang for reasons of its own, and the next one answer."""


class Replicas:
    """Actors of one kind. Each does one thing at a time; one that dies or hangs is replaced and its call issued again.

    ``start`` begins an actor; ``ready`` waits until it can serve. Safe to call from several threads.
    """

    def __init__(
        self,
        count: int,
        start: "Callable[[], ActorHandle[Any]]",
        ready: "Callable[[ActorHandle[Any]], None]",
        *,
        timeout: float,
    ):
        self._start, self._ready, self._timeout = start, ready, timeout
        self._idle: SimpleQueue[ActorHandle[Any]] = SimpleQueue()
        self._alive = [start() for _ in range(count)]  # all before any is waited for: they start side by side
        self._closed = False

    def make_ready(self) -> None:
        """Wait for every actor, side by side, and put them to work; one that has died since it was last used is
        replaced."""
        self._idle = SimpleQueue()
        waited = list(self._alive)
        with ThreadPoolExecutor(len(waited), "readying") as readying:
            for actor in readying.map(self._ready_one, waited):
                self._idle.put(actor)

    def _ready_one(self, actor: "ActorHandle[Any]") -> "ActorHandle[Any]":
        from ray.exceptions import RayActorError

        try:
            self._ready(actor)
            return actor
        except RayActorError:
            return self._replacement(actor)

    def call(self, method: str, *args: Any, what: str, **kwargs: Any) -> Any:
        """The answer of whichever actor is idle first.

        Raises UserError naming ``what`` when time was up ``HANGS`` times, or when the call brought down an actor
        ``TRIES`` times.
        """
        import ray
        from ray.exceptions import RayActorError

        reason, hangs = "", 0
        for _ in range(TRIES):
            actor = self._take(what)
            ref = getattr(actor, method).remote(*args, **kwargs)
            try:
                return ray_pool.wait([ref], timeout=self._timeout, what=what)[0]
            except RayActorError as death:
                reason = " ".join(str(death).split())
                actor = self._replacement(actor)
            except ray_pool.Overdue as late:
                ray.kill(actor)
                if (hangs := hangs + 1) == HANGS:
                    raise  # the dead one is replaced by whoever asks next
                logging.getLogger(__name__).warning("its process is ended and the work issued again: %s", late)
                actor = self._replacement(actor)
            finally:
                self._idle.put(actor)
        raise UserError(
            f"{what}: ended the process that worked on it {TRIES} times, so it is set aside ({reason[:300]}). "
            "Look for what is special about these prompts, or give the process more memory"
        )

    def pids(self) -> list[int]:
        """Process ids on their machines, in the order the actors were started."""
        return ray_pool.wait([a.pid.remote() for a in self._alive], timeout=self._timeout, what="process ids")

    def close(self) -> None:
        """End the processes. Calls still under way fail."""
        import ray

        self._closed = True
        for actor in self._alive:
            ray.kill(actor)
        self._alive.clear()

    def _take(self, what: str) -> "ActorHandle[Any]":
        end = monotonic() + self._timeout
        while not self._closed:
            try:
                return self._idle.get(timeout=min(1.0, max(0.0, end - monotonic())))
            except Empty:
                if monotonic() >= end:
                    raise UserError(
                        f"{what}: no process was free for {self._timeout:g} s. {ray_pool.diagnosis()}"
                    ) from None
        raise RuntimeError(f"{what}: asked of engines that are closed")

    def _replacement(self, dead: "ActorHandle[Any]") -> "ActorHandle[Any]":
        """A process in the place of a dead one. It may die before it serves, for as long as the cluster takes a machine
        that is gone for one that is there."""
        from ray.exceptions import RayActorError

        reason = ""
        for _ in range(TRIES):
            if self._closed:
                raise RuntimeError("the engines were closed while they worked")
            actor = self._start()
            self._alive[self._alive.index(dead)] = actor
            try:
                self._ready(actor)
                return actor
            except RayActorError as death:
                dead, reason = actor, " ".join(str(death).split())
        raise UserError(
            f"{TRIES} processes in a row died before they could serve ({reason[:300]}). {ray_pool.diagnosis()}"
        )
