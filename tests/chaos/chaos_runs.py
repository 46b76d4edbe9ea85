"""Runs on fake engines, to their end or until something happens to them."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_run import Calls, config_of, drive, fake_engines
from faults import Effects, Fault, Killed
from settled import Settled, plain, settled

from alignment.errors import UserError
from alignment.summary import RunSummary

PARTS = 8
"""Of the effects, so that each test takes seconds: the first, ninth, ... are part 0."""


class Whole(NamedTuple):
    """An undisturbed run."""

    effects: list[str]
    calls: Calls
    store: Settled
    summary: Settled


class Drive(NamedTuple):
    """What became of one process that drives a run, and what it did."""

    effects: Effects
    calls: Calls
    summary: RunSummary | None
    error: UserError | None


def drive_once(given: Path, folder: Path, faults: dict[int, Fault] | None = None) -> Drive:
    """Drive the run in ``folder``, with a cache of its own, until the process's end, death or error."""
    effects = Effects(faults or {})
    with pytest.MonkeyPatch.context() as patch, fake_engines(effects) as calls:
        patch.setenv("RATCHET_CACHE", str(folder / "cache"))
        try:
            return Drive(effects, calls, drive(config_of(folder / "runs", given)), None)
        except Killed:
            assert effects.dead
            return Drive(effects, calls, None, None)
        except UserError as error:
            return Drive(effects, calls, None, error)


def undisturbed(given: Path, folder: Path) -> Whole:
    done = drive_once(given, folder)
    assert done.summary is not None, done.error
    return Whole(done.effects.seen, done.calls, settled(folder / "runs"), summary_of(done.summary, folder))


def summary_of(summary: RunSummary, folder: Path) -> Settled:
    """What a driver tells at the end, as ``settled`` is."""
    return plain(json.loads(summary.model_dump_json().replace(str(folder / "runs"), "STORE")))


def assert_the_same(folder: Path, whole: Whole, at: object) -> None:
    found = settled(folder / "runs")
    differ = [path for path in found.keys() | whole.store.keys() if found.get(path) != whole.store.get(path)]
    assert not differ, f"{at}: {sorted(differ)}"


def assert_well_ended(done: Drive, folder: Path, whole: Whole, at: object) -> None:
    """As the undisturbed run ended, in the store and in what is told of it."""
    assert done.error is None, (at, done.error)
    assert done.summary is not None, at
    assert summary_of(done.summary, folder) == whole.summary, at
    assert_the_same(folder, whole, at)


def part_of(whole: Whole, part: int) -> range:
    return range(1 + part, len(whole.effects) + 1, PARTS)
