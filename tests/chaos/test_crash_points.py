"""A run of two rounds, hurt at every one of its side effects and started again: nothing is lost, doubled or falsified.

The engines are fakes and the process is this one, so that hundreds of deaths take a minute. Other faults than death are
in ``long_faults.py``; whole runs on the real engines, killed from outside, in ``long_random_kills.py`` and in
``flows/long_whole_runs_killed.py``.
"""

import random
from collections import Counter
from pathlib import Path

import pytest
from chaos_runs import PARTS, Whole, assert_the_same, assert_well_ended, drive_once, part_of
from fake_run import Calls, config_of, fake_engines
from faults import Effects

from flows.plan import finished

PAIRS, SEED = 24, 7


def test_the_undisturbed_run_asks_its_engines_for_everything_once(whole: Whole):
    """Two rounds that are both promoted, and more than two hundred places to die in."""
    assert len(whole.effects) > 200
    assert [count for count in Counter(whole.calls).values() if count != 1] == []
    assert sorted(whole.calls) == sorted(call for work in whole.calls.behind.values() for call in work)
    assert [turn["round"] for turn in whole.store["runs/tiny/promoted.json"]["turns"]] == [0, 1]


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_any_side_effect_it_loses_and_doubles_nothing(whole: Whole, given: Path, tmp_path: Path, part: int):
    """Started again it makes what an undisturbed run makes, byte for byte. What was committed is not asked of an engine
    again; of what was not, it is at most the one shard or step that each thread was at."""
    for number in part_of(whole, part):
        folder = tmp_path / str(number)
        killed = drive_once(given, folder, {number: "kill"})
        assert killed.effects.dead, number
        at, there = killed.effects.seen[-1], committed(folder, whole)
        resumed = drive_once(given, folder)
        assert_well_ended(resumed, folder, whole, at)
        assert_little_is_redone(whole, there, killed.calls, resumed.calls, at)


def committed(folder: Path, whole: Whole) -> set[str]:
    """The shards and records that are there, as far as engines worked for them."""
    return {path for path, work in whole.calls.behind.items() if work and (folder / "runs" / path).exists()}


def assert_little_is_redone(whole: Whole, there: set[str], before: Calls, after: Calls, at: str) -> None:
    kept = {call for path in there for call in whole.calls.behind[path]}
    assert not kept & set(after), f"{at}: made again although it was committed"
    assert kept | set(after) == set(whole.calls), f"{at}: something was never made"
    assert max(Counter(after).values(), default=1) == 1, f"{at}: made twice"
    again = set(before) & set(after)
    lost = Counter(kind_of(path) for path, work in whole.calls.behind.items() if work & again)
    assert max(lost.values(), default=0) <= 1, f"{at}: more was in flight than one of each kind: {lost}"


def kind_of(path: str) -> str:
    return path.split("/")[1]


def test_killed_once_more_while_it_resumes_it_comes_to_the_same_end(whole: Whole, given: Path, tmp_path: Path):
    draw = random.Random(SEED)
    for pair in range(PAIRS):
        folder, first, second = tmp_path / str(pair), draw.randint(1, len(whole.effects)), draw.randint(1, 150)
        drive_once(given, folder, {first: "kill"})
        drive_once(given, folder, {second: "kill"})
        assert_well_ended(drive_once(given, folder), folder, whole, (first, second))


def test_a_finished_run_is_found_and_changes_nothing(whole: Whole, given: Path, tmp_path: Path):
    drive_once(given, tmp_path)
    with pytest.MonkeyPatch.context() as patch, fake_engines(Effects()) as calls:
        patch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
        assert finished(config_of(tmp_path / "runs", given)) is not None
    assert calls == []
    assert_the_same(tmp_path, whole, "found")
