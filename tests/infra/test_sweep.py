"""What nobody refers to goes when it is old; what anybody refers to stays, whatever happens at the same time."""

import json
import math
import os
import time
from pathlib import Path

import pytest
from small_rows import commit, dropped
from small_runs import SmallRun, small_run

from alignment.errors import UserError
from alignment.types import Dropped
from infra import artifacts, listing, storage, verify
from infra.sweep import sweep
from infra.sweep_plan import planned

LATER = time.time() + 10**6
"""Everything is older than that."""
DAY = 24 * 3600


@pytest.fixture
def run(store: str, tmp_path: Path) -> SmallRun:
    return small_run(store, tmp_path / "made", rounds=2)


def swept(store: str, before: float = LATER) -> list[tuple[str, str]]:
    """What went: what it was, and where."""
    return [(gone.what, gone.at) for gone in sweep(planned(store, before))]


def paths(store: str) -> set[str]:
    return {found.path for folder in ("objects", "runs", "probes") for found in listing.listing(store, folder)}


def forget(run: SmallRun) -> None:
    """The run's names, as a person removes them."""
    storage.remove(run.store, f"runs/{run.run}")


def sound(store: str) -> None:
    assert verify.verify(verify.survey(store)).problems == ()


def test_nothing_goes_that_a_run_refers_to(run: SmallRun):
    before = paths(run.store)
    assert swept(run.store) == []
    assert paths(run.store) == before


def test_objects_that_no_run_names_go_children_first_and_leave_nothing(run: SmallRun, store: str):
    artifacts.claim_run(store, "other", {"rounds": 1})
    artifacts.name(store, "other", "start/x", commit(store, "kept", recipe="kept"))
    forget(run)
    gone = [at for what, at in swept(store) if what == "object"]
    assert set(gone) == {f"objects/{run.key(name)}" for name in run.made}
    for made in run.made.values():
        here = gone.index(f"objects/{made.kind}/{made.recipe}")
        assert all(here < gone.index(f"objects/{parent}") for parent in made.parents)
    assert {path.split("/")[2] for path in paths(store) if path.startswith("objects")} == {"kept"}
    sound(store)


def test_on_a_disk_no_empty_folder_of_an_object_is_left(tmp_path: Path):
    run = small_run(str(tmp_path / "store"), tmp_path / "made", rounds=1)
    forget(run)
    swept(run.store)
    assert sorted(path.name for path in (tmp_path / "store/objects").rglob("*")) == [
        "completions", "groups", "pairs", "policy", "prompts", "reward_model"
    ]  # fmt: skip


def test_what_a_kept_object_was_made_from_stays_however_far_back(run: SmallRun):
    """Of all names the last policy's is left: it came from everything."""
    for found in listing.listing(run.store, "runs"):
        if not found.path.endswith("round-001/train.json"):
            storage.remove(run.store, found.path)
    assert [what for what, _ in swept(run.store)] == []
    assert len(verify.verify(verify.survey(run.store)).problems) == 1  # no configuration: that was removed above


@pytest.mark.parametrize("kept", ["promoted.json", "round-001/manifest.json", "start/manifest.json"])
def test_promotions_and_manifests_are_references(run: SmallRun, kept: str):
    """Without any name: the first and the second policy were promoted, and manifests hold policies and evaluations."""
    for found in listing.listing(run.store, "runs"):
        if found.path != f"runs/small/{kept}":
            storage.remove(run.store, found.path)
    gone = {at for _, at in swept(run.store)}
    stays = {"promoted.json": ("round-000/train", "round-001/train"), "start/manifest.json": ("start/policy",)}
    for name in stays.get(kept, ("round-001/train", "round-001/score")):
        assert f"objects/{run.key(name)}" not in gone
    assert bool(gone) == (kept == "start/manifest.json")


def test_a_model_that_a_configuration_gives_by_its_address_is_referred_to(store: str):
    """A run that was claimed and has not yet adopted its policy."""
    first, second = (artifacts.commit_rows(store, "policy", r, dropped(r), Dropped) for r in ("p1", "p2"))
    artifacts.claim_run(store, "a", {"run": "a", "policy": {"type": "pretrained", "model": first.uri}})
    assert swept(store) == [("object", "objects/policy/p2")]
    assert artifacts.find(store, "policy", "p1") == first
    assert artifacts.find(store, "policy", second.recipe) is None


def test_what_is_young_stays_and_what_it_was_made_from(store: str, overwrite):
    """A child of today keeps a parent of last year; a neighbour of last year goes."""
    for recipe, parents in (("old", ()), ("neighbour", ()), ("child", ["pairs/old"])):
        commit(store, recipe, recipe=recipe, parents=parents)
    for recipe in ("old", "neighbour"):
        path = f"objects/pairs/{recipe}/record.json"
        record = json.loads(storage.read_bytes(store, path))
        overwrite(store, path, json.dumps(record | {"created": "2025-01-01T00:00:00+00:00"}).encode())
    assert swept(store, time.time() - 7 * DAY) == [("object", "objects/pairs/neighbour")]
    sound(store)


def test_litter_goes_when_it_is_old_and_only_then(run: SmallRun, overwrite):
    at = f"objects/{run.key('round-000/select')}"
    left = [
        f"{at}/data/{'0' * 32}/rows.parquet",
        f"{at}/.record.json.{'0' * 32}.tmp",
        f"objects/pairs/never/data/{'0' * 32}/rows.parquet",
        f"runs/small/round-000/.select.json.{'0' * 32}.tmp",
        f"probes/{'0' * 32}/1",
    ]
    before = paths(run.store)
    for path in left:
        overwrite(run.store, path, b"half")
    assert swept(run.store, time.time() - DAY) == []
    gone = sweep(planned(run.store, LATER))
    assert {doomed.what for doomed in gone} == {"litter"}
    assert sorted(found.path for doomed in gone for found in doomed.files) == sorted(left)
    assert sum(doomed.size for doomed in gone) == 4 * len(left)
    assert paths(run.store) == before
    sound(run.store)


def test_shards_of_an_object_that_was_never_whole_go_by_their_last_one(tmp_path: Path):
    """An object that is being made shows it by its newest shard, be the first ever so old."""
    store = str(tmp_path)
    shards = [artifacts.commit_shard(store, "pairs", "r1", number, dropped("a"), Dropped) for number in (0, 1)]
    for found in listing.listing(store, "objects"):
        if "shard-00001.json" not in found.path:
            os.utime(tmp_path / found.path, (0, 0))
    assert swept(store, time.time() - DAY) == []
    assert artifacts.find_shard(store, "pairs", "r1", 0) == shards[0]
    os.utime(tmp_path / "objects/pairs/r1/shard-00001.json", (0, 0))
    assert swept(store, time.time() - DAY) == [("unfinished", "objects/pairs/r1")]
    assert paths(store) == set()


def test_files_that_no_writer_of_a_store_makes_are_left_alone(run: SmallRun, overwrite):
    forget(run)
    for path in ("objects/README", "objects/verses/r1/record.json", "runs/notes.txt", "runs/small/.promoted.json.lock"):
        overwrite(run.store, path, b"mine")
    swept(run.store)
    assert paths(run.store) == {
        "objects/README", "objects/verses/r1/record.json", "runs/notes.txt", "runs/small/.promoted.json.lock"
    }  # fmt: skip


@pytest.mark.parametrize("path", ["round-000/select.json", "promoted.json", "round-001/manifest.json"])
def test_nothing_is_swept_where_a_reference_cannot_be_read(run: SmallRun, overwrite, path: str):
    commit(run.store, "unnamed", recipe="unnamed")
    overwrite(run.store, f"runs/small/{path}", b"{")
    with pytest.raises(UserError, match=rf"runs/small/{path} is damaged .* so nothing is swept; see ratchet verify"):
        planned(run.store, LATER)


def test_nothing_is_swept_where_the_record_of_a_needed_object_cannot_be_read(run: SmallRun, overwrite):
    key = run.key("round-000/select")
    overwrite(run.store, f"objects/{key}/record.json", b"{")
    with pytest.raises(UserError, match=f"objects/{key}/record.json is damaged, and a run needs it"):
        planned(run.store, LATER)


def test_a_damaged_record_that_nobody_needs_goes_with_its_data(store: str, overwrite):
    commit(store, "a")
    overwrite(store, "objects/pairs/r1/record.json", b"{")
    assert swept(store) == [("object", "objects/pairs/r1")]
    assert paths(store) == set()


def test_a_plan_removes_nothing(run: SmallRun):
    forget(run)
    before = paths(run.store)
    plan = planned(run.store, LATER)
    assert len(plan.doomed) == 11
    assert sum(doomed.size for doomed in plan.doomed) == sum(f.size for f in listing.listing(run.store, "objects"))
    assert paths(run.store) == before


def test_a_sweep_without_an_age_stops_where_a_run_was_claimed_meanwhile(store: str):
    made = commit(store, "a")
    plan = planned(store, math.inf)
    artifacts.claim_run(store, "new", {})
    with pytest.raises(UserError, match="run 'new' was claimed meanwhile, so the sweep stops; give it an age"):
        sweep(plan)
    assert artifacts.find(store, "pairs", "r1") == made
