"""What an artifact came from is followed to the end, each object once, and what is missing is told as missing."""

import json
from pathlib import Path

import pytest
from small_rows import commit
from small_runs import SmallRun, small_run

from alignment.errors import UserError
from infra import storage
from infra.lineage import Address, Lineage, find_address, trace


@pytest.fixture
def run(store: str, tmp_path: Path) -> SmallRun:
    return small_run(store, tmp_path / "made", rounds=2)


def lineage(run: SmallRun, name: str) -> Lineage:
    return trace(Address(run.store, run.key(name)))


def test_a_policy_goes_back_to_the_first_policy_through_all_that_made_it(run: SmallRun):
    """A reward model learns from the first policy; every round uses both of them, and all rounds before."""
    found = lineage(run, "round-001/train")
    assert {node.key for node in found.nodes} == {run.key(name) for name in run.made}
    assert found.nodes[0].key == run.key("round-001/train")
    by_name = {node.names[0].removeprefix("small/"): node for node in found.nodes}
    assert by_name["round-001/train"].parents == tuple(
        run.key(name) for name in ("round-000/train", "start/policy", "round-001/select")
    )
    assert by_name["start/policy"].parents == ()
    assert by_name["round-001/select"].rows == 3
    assert found.broken == ()


def test_every_object_stands_before_what_it_was_made_from_and_once(run: SmallRun):
    place = {node.key: number for number, node in enumerate(lineage(run, "round-001/train").nodes)}
    assert len(place) == 11
    for node in lineage(run, "round-001/train").nodes:
        assert all(place[node.key] < place[parent] for parent in node.parents)


def test_what_came_later_is_no_part_of_it(run: SmallRun):
    found = lineage(run, "round-000/score")
    assert {node.names[0] for node in found.nodes} == {
        f"small/{name}"
        for name in ("round-000/score", "round-000/generate", "start/prompts", "start/policy", "start/reward-model")
    }


def test_the_names_of_all_runs_that_share_an_object_are_told(run: SmallRun, tmp_path: Path):
    small_run(run.store, tmp_path / "others", run="other", rounds=1)
    shared = lineage(run, "round-001/train").nodes[-1]
    assert {name.split("/")[0] for name in shared.names} == {"small", "other"}
    assert lineage(run, "round-001/train").nodes[0].names == ("small/round-001/train",)


def test_a_parent_that_is_missing_is_told_as_missing_and_its_parents_are_unknown(run: SmallRun):
    storage.remove(run.store, f"objects/{run.key('round-000/train')}")
    (missing,) = lineage(run, "round-001/train").broken
    assert (missing.key, missing.state, missing.parents) == (run.key("round-000/train"), "missing", ())
    assert missing.names == ("small/round-000/train",)
    assert run.key("round-000/select") not in {node.key for node in lineage(run, "round-001/train").nodes}


def test_a_record_that_cannot_be_read_is_told_as_damaged(run: SmallRun, overwrite):
    overwrite(run.store, f"objects/{run.key('round-001/select')}/record.json", b"{")
    (damaged,) = lineage(run, "round-001/train").broken
    assert (damaged.key, damaged.state) == (run.key("round-001/select"), "damaged")


def test_records_that_were_damaged_into_a_circle_are_told(store: str, overwrite):
    commit(store, "a", recipe="r1")
    commit(store, "b", recipe="r2", parents=["pairs/r1"])
    record = json.loads(storage.read_bytes(store, "objects/pairs/r1/record.json"))
    overwrite(store, "objects/pairs/r1/record.json", json.dumps(record | {"parents": ["pairs/r2"]}).encode())
    with pytest.raises(UserError, match="the record of pairs/r1 names it among its own ancestors"):
        trace(Address(store, "pairs/r2"))


def test_an_artifact_is_found_by_address_by_the_beginning_of_its_recipe_and_by_name(run: SmallRun):
    made, key = run.made["round-001/train"], run.key("round-001/train")
    assert find_address(made.uri, "elsewhere") == Address(storage.canonical(run.store), key)
    assert find_address(f"{made.uri}/", "elsewhere").key == key
    assert find_address(f"objects/{key}", run.store) == Address(run.store, key)
    assert find_address(f"policy/{made.recipe[:7]}", run.store) == Address(run.store, key)
    assert find_address("round-001/train", run.store, "small") == Address(run.store, key)


def test_an_artifact_that_is_none_or_several_is_told(store: str):
    for recipe in ("ab1", "ab2", "b"):
        commit(store, recipe, recipe=recipe)
    assert find_address("pairs/b", store).key == "pairs/b"
    with pytest.raises(UserError, match=r"pairs/ab: 2 objects in store .* begin so \(ab1, ab2\); give more of it"):
        find_address("pairs/ab", store)
    with pytest.raises(UserError, match=r"has no object pairs/c among its 3 pairs"):
        find_address("pairs/c", store)
    for said in ("pears/ab", "pairs", "", "pairs/"):
        with pytest.raises(UserError, match=r"not an artifact; give STORE/objects/KIND/RECIPE.* prompts, policy"):
            find_address(said, store)


def test_a_recipe_that_begins_another_is_found(store: str):
    for recipe in ("ab", "abc"):
        commit(store, recipe, recipe=recipe)
    assert find_address("pairs/ab", store).key == "pairs/ab"


def test_a_step_that_the_run_has_not_is_told_with_those_that_are_near(run: SmallRun):
    with pytest.raises(
        UserError, match=r"run 'small' in store .* has no step 'round-001/trian'; it has round-001/train"
    ):
        find_address("round-001/trian", run.store, "small")
    with pytest.raises(UserError, match="has no run 'x'; it has: small"):
        find_address("round-001/train", run.store, "x")
