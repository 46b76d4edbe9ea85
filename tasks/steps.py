"""Where a step's artifact is named, and how a step is found, timed and shown."""

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from alignment.probes import Evidence, ProbeFailed
from alignment.types import Artifact, Kind, StepNote
from infra import artifacts
from infra.redaction import redact
from infra.stored_files import sha256_of
from tasks import console
from tasks.places import Place, note_path, probes_path


class NotMade(Exception):
    """Raised while planning, where a step would have to be made."""

    def __init__(self, folder: str, step: str):
        super().__init__(f"{folder}/{step}")
        self.round = int(folder.removeprefix("round-")) if folder.startswith("round-") else -1
        """-1 before the first round."""


P = ParamSpec("P")
R = TypeVar("R")


def step_task(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A Prefect task that keeps no result, since the artifact store does; while planning, the plain function. Prefect
    stores what its errors say, so they hold no secret."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def without_secrets(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                redact(error)
                raise

        run_name = f"{name} {{at.folder}}" if "at" in inspect.signature(function).parameters else None
        decorate = task(name=name, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)
        under_prefect = decorate(without_secrets)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(*args, **kwargs) if planning.get() is not None else under_prefect(*args, **kwargs)

        return call

    return wrap


planning: ContextVar[list[tuple[str, str, Artifact]] | None] = ContextVar("planning", default=None)
"""The steps found so far, while a plan is made: then nothing is made, named or shown. None otherwise."""


def find_step(at: Place, step: str, kind: Kind, recipe: str) -> Artifact | None:
    """The step's artifact, where equal work was done already, by this run or any other; named in this run."""
    done = artifacts.find(at.store, kind, recipe)
    if done is None:
        if planning.get() is not None:
            raise NotMade(at.folder, step)
        return None
    if (found := planning.get()) is not None:
        found.append((at.folder, step, done))
    else:
        _note(at, step, done, seconds=0.0, reused=True)
        console.found(at.folder, step)
    return done


class Stopwatch:
    """Seconds since it was started."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)


@contextmanager
def making(at: Place, step: str) -> Iterator[Stopwatch]:
    """Around the making of a step. What a probe that fails had compared is kept in the run's folder, and the error says
    where."""
    console.making(at.folder, step)
    try:
        yield Stopwatch()
    except ProbeFailed as failed:
        if failed.evidence is None:
            raise
        kept = _keep(at, step, failed.evidence)
        raise ProbeFailed(f"{failed}. What was compared is in {at.store}/{kept}") from failed


def made(at: Place, step: str, artifact: Artifact, watch: Stopwatch) -> Artifact:
    """Name a step's fresh artifact in the run, with the seconds it took."""
    _note(at, step, artifact, seconds=watch.seconds, reused=False)
    console.made(at.folder, step, watch.seconds)
    return artifact


def _note(at: Place, step: str, artifact: Artifact, *, seconds: float, reused: bool) -> None:
    artifacts.name(at.store, at.run, f"{at.folder}/{step}", artifact)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    note = StepNote(seconds=seconds, reused=reused, finished=now)
    artifacts.put_once(at.store, note_path(at, step), note.model_dump_json().encode())


def _keep(at: Place, step: str, evidence: Evidence) -> str:
    """Equal evidence is one file, however often the step fails."""
    data = evidence.model_dump_json(indent=1).encode()
    path = f"{probes_path(at)}/{step}-{sha256_of(data)[:12]}.json"
    artifacts.put_once(at.store, path, data)
    return path
