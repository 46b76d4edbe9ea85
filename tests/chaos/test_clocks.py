"""Clocks that go back, stand still or leap bear on no digest, and steps are told in an order that can have been."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from chaos_runs import Whole, assert_the_same, drive_once, summary_of
from fake_run import FOLDERS, RUN
from rich.console import Console

from infra import objects
from tasks import steps
from tasks.history import read_run, read_steps
from tasks.show import show_text
from tasks.steps import Place

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLOCKS: dict[str, Callable[[int], datetime]] = {
    "goes back an hour each time": lambda n: NOON - n * timedelta(hours=1),
    "stands still": lambda n: NOON,
    "leaps a year to and fro": lambda n: NOON + n * timedelta(seconds=1) + (n % 3) * timedelta(days=365),
}


def clock(told: Callable[[int], datetime]) -> type[datetime]:
    asked = count()

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None) -> datetime:
            return told(next(asked))

    return Clock


@pytest.fixture(params=CLOCKS)
def run(request: pytest.FixtureRequest, given: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder of a run that was killed in its second round and ended by another driver, under a clock like that."""
    told = clock(CLOCKS[request.param])
    with pytest.MonkeyPatch.context() as patch:
        for module in (objects, steps):
            patch.setattr(module, "datetime", told)
        drive_once(given, tmp_path, {180: "kill"})
        yield tmp_path if drive_once(given, tmp_path).summary else Path()


def test_no_digest_depends_on_a_clock(run: Path, whole: Whole):
    assert_the_same(run, whole, "clock")


def test_a_run_reads_as_one_under_a_sound_clock(run: Path, whole: Whole):
    store = str(run / "runs")
    assert summary_of(read_run(store, RUN), run) == whole.summary
    Console(quiet=True).print(show_text(read_run(store, RUN)))


def test_no_step_is_told_before_what_it_was_made_from(run: Path):
    told = [
        step.artifact
        for folder in FOLDERS
        for step in read_steps(Place(store=str(run / "runs"), run=RUN, folder=folder)).values()
    ]
    addresses = [f"{artifact.kind}/{artifact.recipe}" for artifact in told]
    assert len(told) == 30
    for number, artifact in enumerate(told):
        assert set(artifact.parents) & set(addresses) <= set(addresses[:number]), addresses[number]
