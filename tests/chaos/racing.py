"""What processes race each other to do, and the pool they live in. Each gives back what it got, or what it was told."""

import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from chaos_runs import drive_once

from alignment.errors import Conflict
from alignment.types import Artifact, Dropped
from infra import artifacts
from infra.artifacts import Promotion

WRITERS = 16
_start: Barrier


class Refused(NamedTuple):
    """The Conflict a process met."""

    told: str


def racers(count: int = WRITERS) -> Pool:
    """Processes that start each task together: as many tasks as there are processes must be given at once."""
    context = get_context("forkserver")  # a fork of this one would inherit its threads and its S3 client
    context.set_forkserver_preload(["racing"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # else it does not find what to load beforehand
        return context.Pool(count, _join, (context.Barrier(count),))


def _join(start: Barrier) -> None:
    global _start
    _start = start
    os.fsync = lambda descriptor: None  # power is not cut here, and a thousand syncs take a minute


def commit(environment: Mapping[str, str], store: str, recipe: str, items: Sequence[str]) -> Artifact | Refused:
    os.environ.update(environment)
    rows = [Dropped(step="select", item=item, reason="tie") for item in items]
    artifacts.find(store, "pairs", recipe)  # the connection stands before the race
    _start.wait()
    try:
        return artifacts.commit_rows(store, "pairs", recipe, rows, Dropped)
    except Conflict as conflict:
        return Refused(str(conflict))


def promote_once(environment: Mapping[str, str], store: str, run: str, policy: Artifact) -> Promotion | Refused:
    os.environ.update(environment)
    expected = artifacts.promoted(store, run)
    _start.wait()
    return _promote(store, run, policy, expected)


def promote_at_last(environment: Mapping[str, str], store: str, run: str, policy: Artifact) -> int:
    """Promote the policy in a round of its own, after whatever stands by then; how often it was refused before."""
    os.environ.update(environment)
    _start.wait()
    refused = 0
    while isinstance(_promote(store, run, policy, artifacts.promoted(store, run)), Refused):
        refused += 1
    return refused


def _promote(store: str, run: str, policy: Artifact, expected: Promotion | None) -> Promotion | Refused:
    try:
        return artifacts.promote(store, run, policy, expected.round + 1 if expected else 0, expected)
    except Conflict as conflict:
        return Refused(str(conflict))


def claim(environment: Mapping[str, str], store: str, run: str, config: Mapping[str, Any]) -> Refused | None:
    os.environ.update(environment)
    artifacts.list_runs(store)
    _start.wait()
    try:
        return artifacts.claim_run(store, run, config)
    except Conflict as conflict:
        return Refused(str(conflict))


def drive(given: Path, folder: Path) -> tuple[int, str | None]:
    """Drive the run in this folder; the number of calls to its engines, and its error."""
    _start.wait()
    done = drive_once(given, folder)
    return len(done.calls), None if done.error is None else str(done.error)
