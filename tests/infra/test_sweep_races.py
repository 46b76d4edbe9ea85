"""A sweep while runs go on, and a sweep that is killed: an object is there whole, or it is not there."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

import pytest
from small_rows import commit, dropped
from small_runs import SmallRun, small_run

from alignment.errors import UserError
from alignment.types import Dropped, Kind
from infra import artifacts, listing, objects, storage, verify
from infra.object_folders import own_paths
from infra.objects import ObjectRecord
from infra.sweep import sweep
from infra.sweep_plan import Doomed, Plan, planned

LATER = time.time() + 10**6
"""Everything is older than that."""


@pytest.fixture
def run(store: str, tmp_path: Path) -> SmallRun:
    return small_run(store, tmp_path / "made", rounds=2)


def sound(store: str) -> None:
    assert verify.verify(verify.survey(store)).problems == ()


def plan_of(run: SmallRun) -> Plan:
    """To remove it all: its names are gone, as when a person removes them."""
    storage.remove(run.store, f"runs/{run.run}")
    return planned(run.store, LATER)


def between(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen right after the records were taken away."""
    remove, waiting = listing.remove_all, [happens]

    def removing(store: str, gone: list[str]) -> None:
        remove(store, gone)
        if waiting:
            waiting.pop()()

    monkeypatch.setattr("infra.sweep.remove_all", removing)


def test_an_object_that_was_named_since_the_plan_stays_with_what_it_came_from(run: SmallRun):
    plan = plan_of(run)
    artifacts.claim_run(run.store, "new", {"rounds": 1})
    artifacts.name(run.store, "new", "round-000/score", run.made["round-000/score"])
    gone = {doomed.at for doomed in sweep(plan)}
    kept = {"round-000/score", "round-000/generate", "start/prompts", "start/policy", "start/reward-model"}
    assert gone == {f"objects/{run.key(name)}" for name in run.made.keys() - kept}
    sound(run.store)


def test_an_object_whose_name_was_on_its_way_is_put_back_whole(run: SmallRun, monkeypatch):
    """The run had looked for the record before it was taken away, and its name arrives after."""
    plan = plan_of(run)
    made = run.made["round-000/score"]
    pointer = json.dumps({"kind": made.kind, "recipe": made.recipe, "digest": made.digest}).encode()
    artifacts.claim_run(run.store, "new", {"rounds": 1})
    between(monkeypatch, lambda: storage.put_once(run.store, "runs/new/round-000/score.json", pointer) and None)
    gone = {doomed.at for doomed in sweep(plan)}
    assert f"objects/{run.key('round-000/select')}" in gone
    assert not gone & {f"objects/{run.key(name)}" for name in ("round-000/score", "round-000/generate", "start/policy")}
    sound(run.store)
    assert len(list(artifacts.read_rows(made, Dropped))) == 3
    assert artifacts.find_shard(run.store, "groups", made.recipe, 1) is not None


def test_two_sweeps_are_not_at_work_at_once(run: SmallRun, monkeypatch):
    """The second would remove the data of what the first puts back. It is told who is at work."""
    plan, told = plan_of(run), []

    def second() -> None:
        with pytest.raises(UserError, match=r"another sweep is at work \(.* since .*\); run again when it has ended"):
            sweep(plan)
        told.append(True)

    between(monkeypatch, second)
    assert sweep(plan)
    assert told == [True]
    assert sweep(planned(run.store, LATER)) == []


def test_an_object_that_is_made_anew_meanwhile_stays(run: SmallRun, monkeypatch):
    """Another writer finds no record, and commits equal work into the same folder before the old data are removed."""
    plan, made = plan_of(run), run.made["round-000/select"]
    rows = list(artifacts.read_rows(made, Dropped))

    def make() -> None:
        artifacts.commit_rows(run.store, "pairs", made.recipe, rows, Dropped, parents=made.parents)

    between(monkeypatch, make)
    gone = {doomed.at for doomed in sweep(plan)}
    assert f"objects/{run.key('round-000/select')}" not in gone
    assert f"objects/{run.key('round-000/train')}" in gone
    sound(run.store)
    assert list(artifacts.read_rows(made, Dropped)) == rows


def test_a_name_whose_object_is_swept_in_the_same_moment_is_no_name(store: str, monkeypatch):
    """The record goes after the run looked for it, and the sweep does not see the name: the run does see the gap."""
    made, put = commit(store, "a"), storage.put_once

    def late(store: str, path: str, data: bytes) -> bool:
        storage.remove(store, "objects/pairs/r1/record.json")
        return put(store, path, data)

    monkeypatch.setattr(storage, "put_once", late)
    monkeypatch.setattr(objects, "PUT_BACK_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"pairs/r1 .* is not there; run again to make it anew"):
        artifacts.name(store, "a", "round-000/select", made)
    assert storage.read(store, "runs/a/round-000/select.json") is None


def test_a_name_stays_where_its_object_cannot_be_looked_for(store: str, monkeypatch):
    """Another driver of the run may rely on it by then."""
    made, read = commit(store, "a"), objects.read_record

    def failing(store: str, kind: Kind, recipe: str) -> ObjectRecord | None:
        if storage.read(store, "runs/a/round-000/select.json") is None:
            return read(store, kind, recipe)
        raise UserError("Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "read_record", failing)
        with pytest.raises(UserError, match="Input/output error"):
            artifacts.name(store, "a", "round-000/select", made)
    assert artifacts.named(store, "a", "round-000/select") == made


def test_a_name_that_another_driver_gave_is_none_without_its_object(store: str, monkeypatch):
    """Both drivers looked for the object; then a sweep that saw no name took it, and both gave the name."""
    made, put = commit(store, "a"), storage.put_once
    artifacts.name(store, "a", "round-000/select", made)

    def late(store: str, path: str, data: bytes) -> bool:
        storage.remove(store, "objects/pairs/r1/record.json")
        return put(store, path, data)

    monkeypatch.setattr(storage, "put_once", late)
    monkeypatch.setattr(objects, "PUT_BACK_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"pairs/r1 .* is not there; run again to make it anew"):
        artifacts.name(store, "a", "round-000/select", made)
    assert storage.read(store, "runs/a/round-000/select.json") is None


def test_a_reader_waits_for_a_record_that_a_sweep_puts_back(store: str):
    """The sweep took the record before it saw the name, which was there by the time it looked again."""
    made, record = commit(store, "a"), "objects/pairs/r1/record.json"
    artifacts.name(store, "a", "round-000/select", made)
    data = storage.read_bytes(store, record)
    storage.remove(store, record)
    with ThreadPoolExecutor(2) as pool:
        found = pool.submit(artifacts.named, store, "a", "round-000/select")
        rows = pool.submit(list, artifacts.read_rows(made, Dropped))
        time.sleep(0.3)
        assert [found.done(), rows.done()] == [False, False]
        storage.put_once(store, record, data)
    assert found.result() == made
    assert rows.result() == dropped("a")


def test_shards_that_are_swept_while_they_are_declared_whole_make_no_object(store: str, monkeypatch):
    shards = [artifacts.commit_shard(store, "pairs", "r1", number, dropped(str(number)), Dropped) for number in (0, 1)]
    put = storage.put_once

    def late(store: str, path: str, data: bytes) -> bool:
        storage.remove(store, "objects/pairs/r1/shard-00001.json")
        return put(store, path, data)

    monkeypatch.setattr(storage, "put_once", late)
    with pytest.raises(UserError, match=r"pairs/r1 was swept of shards \[1\] while it was made; run again"):
        artifacts.commit_shards(store, "pairs", "r1", shards)
    assert artifacts.find(store, "pairs", "r1") is None


def test_shards_that_were_declared_whole_meanwhile_stay(store: str, monkeypatch):
    """A run goes on with shards that were old, and has written its record before the sweep looks for one."""
    shards = [artifacts.commit_shard(store, "pairs", "r1", number, dropped(str(number)), Dropped) for number in (0, 1)]
    plan = planned(store, LATER)
    assert [doomed.what for doomed in plan.doomed] == ["unfinished"]
    data = [file.file for file in shards]
    digest = commit(store, "0", "1", recipe="other").digest
    how = {"parents": (), "facts": {}, "asked": None, "row_type": "Dropped", "rows": 2}
    between(monkeypatch, lambda: objects.commit(store, "pairs", "r1", digest, tuple(data), **how) and None)
    assert sweep(plan) == []
    sound(store)


@pytest.mark.parametrize("calls", range(6))
def test_a_sweep_that_is_killed_leaves_no_half_object_and_the_next_one_ends_it(run: SmallRun, monkeypatch, calls: int):
    """Three batches, each removing records and then data: killed before any one of these."""
    remove, left = listing.remove_all, iter(range(6))

    def dying(store: str, gone: list[str]) -> None:
        if next(left) == calls:
            raise KeyboardInterrupt
        remove(store, gone)

    plan = plan_of(run)
    with monkeypatch.context() as patch:
        patch.setattr("infra.sweep.remove_all", dying)
        patch.setattr("infra.sweep.BATCH", 4)
        with pytest.raises(KeyboardInterrupt):
            sweep(plan)
    sound(run.store)
    sweep(planned(run.store, LATER))
    assert listing.listing(run.store, "objects") == []


def test_an_attempt_of_another_writer_beside_an_old_object_stays(tmp_path: Path):
    """It is young, and its writer may be about to declare it whole when the old record is gone."""
    store, day = str(tmp_path), 24 * 3600
    commit(store, "a")
    path = tmp_path / "objects/pairs/r1/record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"created": "2026-01-01T00:00:00+00:00"}))
    storage.write_all(store, "objects/pairs/r1/data/0", {"rows.parquet": b"half"})
    assert [gone.at for gone in sweep(planned(store, time.time() - day))] == ["objects/pairs/r1"]
    assert [found.path for found in listing.listing(store, "objects")] == ["objects/pairs/r1/data/0/rows.parquet"]


def test_runs_that_share_work_while_it_is_swept_all_the_time_never_name_what_is_not_there(store: str, monkeypatch):
    """Three runs commit the same eight objects and name them, while names are removed again and every object without
    one is swept at once, however young. What a run is told is gone, it makes again."""
    monkeypatch.setattr(objects, "PUT_BACK_SECONDS", 2)
    rounds, done = 24, Event()

    def work(run: str) -> None:
        artifacts.claim_run(store, run, {"rounds": 1})
        named = 0
        while named < rounds:
            at = f"round-{named:03d}/select"
            try:
                artifacts.name(store, run, at, commit(store, str(named % 8), recipe=f"r{named % 8}"))
            except UserError:
                continue
            assert list(artifacts.read_rows(artifacts.named(store, run, at), Dropped)) == dropped(str(named % 8))
            if named % 5:
                storage.remove(store, f"runs/{run}/{at}.json")
            named += 1

    def clear() -> int:
        gone = 0
        while not done.wait(0.01):  # what is in memory would be swept faster than anybody can name it
            plan = planned(store, LATER)
            gone += len(sweep(plan._replace(doomed=tuple(map(of_record, filter(whole, plan.doomed))))))
        return gone

    with ThreadPoolExecutor(4) as pool:
        clearing, working = pool.submit(clear), [pool.submit(work, run) for run in ("a", "b", "c")]
        wait(working)
        done.set()
    assert [future.result() for future in working] == [None] * 3
    assert clearing.result() > 0
    sound(store)


def whole(doomed: Doomed) -> bool:
    return doomed.what == "object"


def of_record(doomed: Doomed) -> Doomed:
    """Without what lies beside it: that only its age protects, which nothing here has."""
    return doomed._replace(files=tuple(found for found in doomed.files if found.path in own_paths(doomed.folder)))
