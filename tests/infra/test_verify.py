"""Damage of every kind is told with its address and both values, all of it at once; and nothing else is."""

import re
from pathlib import Path

import pytest
from damages import DAMAGES, Overwrite, data, edited, folder, one_bit, record
from small_rows import commit, dropped
from small_runs import SmallRun, small_run

from alignment.errors import UserError
from alignment.types import Dropped, digest_of
from infra import artifacts, listing, objects, storage, tables, verify
from infra.stored_files import sha256_of
from infra.verify import Verified
from infra.verify_objects import check_object


@pytest.fixture
def run(store: str, tmp_path: Path) -> SmallRun:
    return small_run(store, tmp_path / "made", rounds=2)


def verified(store: str, run: str | None = None) -> Verified:
    return verify.verify(verify.survey(store, run))


def told_of(store: str, run: str | None = None) -> list[tuple[str, str, str]]:
    """Address within the store, expected and found."""
    start = f"{storage.canonical(store)}/"
    return [(told.at.removeprefix(start), told.expected, told.found) for told in verified(store, run).problems]


def test_a_sound_store_has_nothing_wrong_and_is_counted(run: SmallRun):
    """Three steps at the start and four in each round; two shards of completions and of groups, two files a model."""
    found = verified(run.store)
    assert found.problems == ()
    assert (found.runs, found.names, found.objects, found.unfinished) == (1, 11, 11, 0)
    assert found.files == 2 + 1 + 2 + 2 * (2 + 2 + 1 + 2)
    assert found.bytes == sum(file.size for made in run.made.values() for file in artifacts.record_of(made).files)
    assert (found.litter.files, found.litter.bytes) == (0, 0)
    assert verified(run.store, run.run) == found.model_copy(update={"run": "small"})


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_with_its_address_and_both_values(run: SmallRun, overwrite: Overwrite, name: str):
    damage = DAMAGES[name]
    path = damage.at(run)
    damage.do(run, overwrite)
    (told,) = verified(run.store).problems
    assert told.at == f"{storage.canonical(run.store)}/{path}"
    for said, pattern in ((told.expected, damage.expected), (told.found, damage.found), (told.remedy, damage.remedy)):
        assert re.fullmatch(pattern, said), (said, pattern)
    assert str(told) == f"{told.at}: expected {told.expected}, found {told.found}; {told.remedy}"


@pytest.mark.parametrize(("name", "what"), [("round-001/select", "rows"), ("round-001/train", "files")])
def test_an_edited_digest_is_told_by_the_record_and_by_all_that_point_to_it(
    run: SmallRun, overwrite: Overwrite, name: str, what: str
):
    made = run.made[name]
    edited(record(name), lambda value: value.update(digest="0" * 64))(run, overwrite)
    pointing = (f"{run.key(name)} with digest {made.digest}", f"digest {'0' * 64}")
    others = ["manifest.json", "train.json"] if what == "files" else ["select.json"]
    promoted = [("runs/small/promoted.json", *pointing)] if what == "files" else []
    assert told_of(run.store) == [
        (record(name)(run), f"digest {'0' * 64}", f"digest {made.digest} of its {what}"),
        *promoted,
        *((f"runs/small/round-001/{other}", *pointing) for other in others),
    ]


def test_a_deleted_object_is_missed_by_its_children_and_its_names(run: SmallRun):
    """The pairs of round 0 are parents of that round's policy."""
    storage.remove(run.store, folder(run, "round-000/select"))
    key, digest = run.key("round-000/select"), run.made["round-000/select"].digest
    expected = [
        (record("round-000/train")(run), f"parent {key}", "nothing"),
        ("runs/small/round-000/select.json", f"{key} with digest {digest}", "nothing"),
    ]
    assert told_of(run.store) == expected
    assert told_of(run.store, run.run) == expected


def test_everything_that_is_wrong_is_told_at_once(run: SmallRun, overwrite: Overwrite):
    paths = [data(run, f"round-00{number}/{step}") for number in range(2) for step in ("generate", "score", "select")]
    for path in paths:
        overwrite(run.store, path, one_bit(storage.read_bytes(run.store, path)))
    assert sorted(path for path, _, _ in told_of(run.store)) == sorted(paths)


def test_a_schema_version_that_no_code_here_knows_is_told(store: str):
    asked = {"kind": "pairs", "schema": 99, "inputs": {}}
    made = commit(store, "a", recipe=digest_of(asked), asked=asked)
    (told,) = verified(store).problems
    assert told.at == f"{made.uri}/record.json"
    assert (told.expected, told.found) == ("a schema from 1 to 2", "schema 99")
    assert told.remedy == "use the version of the code that wrote it"


def test_rows_that_this_code_cannot_read_are_told(store: str):
    """Sound bytes of another schema version: their digest cannot be made again."""
    table = tables.to_table(dropped("a"), Dropped).replace_schema_metadata({"row": "Dropped", "schema": "1"})
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    files = objects.write_files(store, "pairs", "r1", {"rows.parquet": sink.getvalue().to_pybytes()})
    how = {"parents": (), "facts": {}, "asked": None, "row_type": "Dropped", "rows": 1}
    objects.commit(store, "pairs", "r1", commit(store, "a", recipe="r2").digest, files, **how)
    ((path, expected, found),) = told_of(store)
    assert path == f"objects/pairs/r1/{files[0].path}"
    assert expected == "rows of Dropped of schema 2"
    assert found.startswith("holds Dropped of schema 1")


def test_a_record_in_the_place_of_another_is_told(store: str, overwrite: Overwrite):
    made = commit(store, "a", recipe="r1")
    content = storage.read_bytes(store, "objects/pairs/r1/record.json")
    (file,) = artifacts.record_of(made).files
    overwrite(store, "objects/pairs/r9/record.json", content)
    overwrite(store, f"objects/pairs/r9/{file.path}", storage.read_bytes(store, f"objects/pairs/r1/{file.path}"))
    assert told_of(store) == [("objects/pairs/r9/record.json", "the record of pairs/r9", "that of pairs/r1")]


def test_shards_of_an_object_that_is_not_whole_are_held_to_their_records(store: str, overwrite: Overwrite):
    shards = [artifacts.commit_shard(store, "pairs", "r1", number, dropped(str(number)), Dropped) for number in (0, 1)]
    found = verified(store)
    assert (found.objects, found.unfinished, found.files, found.problems) == (0, 1, 2, ())
    overwrite(store, f"objects/pairs/r1/{shards[1].file.path}", b"x")
    (told,) = verified(store).problems
    assert (told.expected, told.found) == (f"{shards[1].file.size} bytes", "1 bytes")
    own = f"{storage.canonical(store)}/objects/pairs/r1/shard-00001.json"
    assert told.remedy == f"remove {own} and run again to make it anew"  # the other shard can stay


def test_what_killed_writers_left_is_counted_and_not_wrong(run: SmallRun, overwrite: Overwrite):
    left = {
        f"{folder(run, 'round-000/select')}/data/0/rows.parquet": b"12345",
        f"{folder(run, 'round-000/select')}/.record.json.0.tmp": b"12",
        "objects/pairs/never/data/0/rows.parquet": b"123",
        "runs/small/round-000/.select.json.0.tmp": b"1",
        "probes/0/1": b"1",
    }
    for path, content in left.items():
        overwrite(run.store, path, content)
    found = verified(run.store)
    assert found.problems == ()
    assert (found.litter.files, found.litter.bytes) == (5, 12)
    assert found.objects == 11
    assert verified(run.store, run.run).litter.files == 3  # what is beside the run's own objects and names


def test_the_lock_of_a_promotion_is_no_litter(tmp_path: Path):
    """The second round's promotion swaps the pointer, under a lock that stays for the third."""
    run = small_run(str(tmp_path / "store"), tmp_path / "made", rounds=2)
    assert (tmp_path / "store/runs/small/.promoted.json.lock").exists()
    assert verified(run.store).litter.files == 0


def test_a_run_is_verified_with_what_it_came_from_and_without_other_runs(
    run: SmallRun, tmp_path: Path, overwrite: Overwrite
):
    """Damage in another run is not told; damage in a model that only a parent speaks of is."""
    other = small_run(run.store, tmp_path / "others", run="other", rounds=1)
    damaged = data(other, "round-000/select")
    assert damaged == data(run, "round-000/select")  # equal work is one object
    mine = data(run, "round-001/select")
    overwrite(run.store, mine, b"x")
    assert told_of(run.store, "other") == []
    storage.remove(run.store, "runs/other/round-000/select.json")
    storage.remove(run.store, "runs/other/round-000/notes/select.json")
    overwrite(run.store, damaged, b"x")
    assert [path for path, _, _ in told_of(run.store, "other")] == [damaged]
    assert sorted(path for path, _, _ in told_of(run.store)) == sorted([damaged, mine])


def test_what_a_run_made_while_it_was_verified_is_not_missed(run: SmallRun):
    """Its name is in the listing of names, and it is not in that of objects."""
    found = verify.survey(run.store)
    del found.contents[run.key("start/policy")]
    assert verify.verify(found).problems == ()


def test_no_store_and_no_run_are_told(store: str, tmp_path: Path):
    with pytest.raises(UserError, match="holds neither objects nor runs; check its address"):
        verify.survey(store)
    commit(store, "a")
    with pytest.raises(UserError, match="has no run 'x'; it has: none"):
        verify.survey(store, "x")


def test_several_processes_find_what_one_finds(tmp_path: Path, overwrite: Overwrite, monkeypatch):
    run = small_run(str(tmp_path / "store"), tmp_path / "made", rounds=2)
    overwrite(run.store, data(run, "round-001/select"), b"x")
    alone = verified(run.store)
    assert len(alone.problems) == 1
    for name, value in (("MANY", 1), ("PART", 3)):
        monkeypatch.setattr(verify, name, value)
    monkeypatch.setattr(verify.os, "sched_getaffinity", lambda _: {0, 1})
    heard: list[int] = []
    assert verify.verify(verify.survey(run.store), lambda done, _: heard.append(done)) == alone
    assert heard == list(range(1, 12))


def test_a_large_file_is_read_in_blocks(tmp_path: Path, monkeypatch):
    """A model of 3,000 bytes in blocks of 1,024 has the digest it has in one."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(range(250)) * 12)
    made = artifacts.commit_tree(str(tmp_path / "store"), "policy", "r1", tmp_path / "model")
    monkeypatch.setattr(listing, "BLOCK", 1024)
    there = listing.listing(str(tmp_path / "store"), "objects/policy/r1")
    assert check_object(str(tmp_path / "store"), "policy/r1", there).problems == ()
    assert made.digest == verify_digest(bytes(range(250)) * 12)


def verify_digest(content: bytes) -> str:
    return digest_of({"model.safetensors": sha256_of(content)})
