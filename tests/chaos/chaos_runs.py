"""Runs on fake engines, to their end or until something happens to them."""

from pathlib import Path
from typing import NamedTuple

import pytest
from fake_run import Calls, config_of, drive, fake_engines
from faults import Effects, Fault, Killed
from settled import Settled, settled

from alignment.errors import UserError


class Whole(NamedTuple):
    """An undisturbed run."""

    effects: list[str]
    calls: Calls
    store: Settled


def drive_once(
    given: Path, folder: Path, faults: dict[int, Fault] | None = None
) -> tuple[Effects, Calls, UserError | None]:
    """One process that drives the run in ``folder`` with a cache of its own, until its end, its death or its error."""
    effects, error = Effects(faults or {}), None
    with pytest.MonkeyPatch.context() as patch, fake_engines(effects) as calls:
        patch.setenv("RATCHET_CACHE", str(folder / "cache"))
        try:
            drive(config_of(folder / "runs", given))
        except Killed:
            assert effects.dead
        except UserError as told:
            error = told
    return effects, calls, error


def undisturbed(given: Path, folder: Path) -> Whole:
    effects, calls, error = drive_once(given, folder)
    assert error is None
    return Whole(effects.seen, calls, settled(folder / "runs"))


def assert_the_same(folder: Path, whole: Whole, at: object) -> None:
    found = settled(folder / "runs")
    differ = [path for path in found.keys() | whole.store.keys() if found.get(path) != whole.store.get(path)]
    assert not differ, f"{at}: {sorted(differ)}"
