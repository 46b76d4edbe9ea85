"""Two drivers of one run on one store at the same time: both end well, with what one of them would have made alone."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import racing
from chaos_runs import Whole, assert_the_same, summary_of
from fake_run import Calls, config_of, drive, fake_engines
from faults import Effects, Fault

from alignment.errors import Conflict
from alignment.summary import RunSummary
from infra import conditional
from infra.runs import Turn, Turns

LATE = 0.3
"""Share of the side effects that are late, each time others."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for both: they are on one machine."""
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))


@contextmanager
def moves() -> Iterator[list[tuple[Turn, ...]]]:
    """The history after every move of the pointer."""
    seen: list[tuple[Turn, ...]] = []
    create, swap = conditional.create_local, conditional.swap_local

    def noted(path: Path, data: bytes, won: bool) -> bool:
        if won and path.name == "promoted.json":
            seen.append(Turns.model_validate_json(data).turns)
        return won

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditional, "create_local", lambda p, data, root: noted(p, data, create(p, data, root)))
        patch.setattr(conditional, "swap_local", lambda p, data, v, root: noted(p, data, swap(p, data, v, root)))
        yield seen


def delays(seed: int, effects: int) -> dict[int, Fault]:
    draw = random.Random(seed)
    return {number: "delay" for number in range(1, effects) if draw.random() < LATE}


def drive_both(given: Path, folder: Path, seed: int, lead: int, effects: int) -> tuple[list[RunSummary], Calls]:
    """Two threads that drive the run, the second when the first has done ``lead`` side effects."""
    store = Effects(delays(seed, 2 * effects))
    config = config_of(folder / "runs", given)

    def follow() -> RunSummary:
        while len(store.seen) < lead:
            time.sleep(0.001)
        return drive(config)

    with fake_engines(store) as calls, ThreadPoolExecutor(2) as pool:
        return [driver.result() for driver in (pool.submit(drive, config), pool.submit(follow))], calls


@pytest.mark.parametrize(("seed", "lead"), enumerate([0, 0, 51, 70, 90, 105, 115, 130, 150, 165, 180, 205]))
def test_two_drivers_end_with_what_one_alone_makes(whole: Whole, given: Path, tmp_path: Path, seed: int, lead: int):
    """From the same moment on, and with the second at every stage of the first. What both came to at once is made
    twice at most, and a training, which both would make in one folder, once."""
    with moves() as seen:
        summaries, calls = drive_both(given, tmp_path, seed, lead, len(whole.effects))
    assert [summary_of(each, tmp_path) for each in summaries] == [whole.summary] * 2
    assert_the_same(tmp_path, whole, lead)
    assert set(calls) == set(whole.calls)
    assert max(calls.count(call) for call in calls) <= 2
    assert sum(call.kind == "train" for call in calls) == 2
    assert [[turn.round for turn in turns] for turns in seen] == [[0], [0, 1]]


def test_a_third_driver_with_another_configuration_is_refused_and_asks_nothing(given: Path, tmp_path: Path):
    with fake_engines(Effects()) as calls, ThreadPoolExecutor(1) as pool:
        first = pool.submit(drive, config_of(tmp_path / "runs", given))
        while not (tmp_path / "runs" / "runs" / "tiny" / "config.json").exists():
            time.sleep(0.001)
        with pytest.raises(
            Conflict, match=r"another configuration: train.learning_rate is 0.0001 there and 0.001 here"
        ):
            drive(config_of(tmp_path / "runs", given, "--train.learning_rate", "1e-3"))
        first.result()
        asked = len(calls)
        with pytest.raises(Conflict, match="another configuration"):
            drive(config_of(tmp_path / "runs", given, "--train.learning_rate", "1e-3"))
        assert len(calls) == asked


def test_drivers_that_are_processes_end_with_what_one_alone_makes(whole: Whole, given: Path, tmp_path: Path):
    with racing.racers(3) as pool:
        ends = pool.starmap(racing.drive, [(given, tmp_path)] * 3, chunksize=1)
    assert [error for _, error in ends] == [None] * 3
    assert sum(asked for asked, _ in ends) <= 3 * len(whole.calls)
    assert_the_same(tmp_path, whole, "three processes")
