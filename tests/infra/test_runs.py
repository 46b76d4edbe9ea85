"""Runs: a name is taken once, readable paths point for good, and the promoted policy moves by compare-and-swap."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from alignment.errors import Conflict, UserError
from alignment.types import Artifact, Dropped
from infra import artifacts, objects, storage


def policy(store: str, name: str) -> Artifact:
    return artifacts.commit_rows(store, "policy", name, [Dropped(step="s", item=name, reason="r")], Dropped)


def test_a_run_is_claimed_once_and_again_by_the_same_configuration(store):
    config = {"run": "a", "train": {"loss": {"beta": 0.1}}, "relabel": [], "seed": 0}
    artifacts.claim_run(store, "a", config)
    artifacts.claim_run(store, "a", dict(reversed(config.items())))
    assert artifacts.read_config(store, "a") == config
    assert artifacts.list_runs(store) == ["a"]


def test_another_configuration_is_a_conflict_naming_dotted_fields_and_both_values(store):
    artifacts.claim_run(store, "a", {"train": {"loss": {"beta": 0.1}}, "relabel": [{"type": "rad"}], "seed": 0})
    with pytest.raises(Conflict) as told:
        artifacts.claim_run(store, "a", {"train": {"loss": {"beta": 0.05}}, "relabel": [], "seed": 0, "note": "x"})
    assert str(told.value) == (
        f"run 'a' exists in store {store} with another configuration: note is absent there and \"x\" here; "
        'relabel is absent there and [] here; relabel.0.type is "rad" there and absent here; '
        "train.loss.beta is 0.1 there and 0.05 here; "
        "choose a new run name, or branch off with: ratchet fork a NEW"
    )


def test_sixteen_configurations_race_for_one_name_and_one_has_it(store):
    def claim(seed: int) -> bool:
        try:
            artifacts.claim_run(store, "a", {"seed": seed})
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(claim, range(16)))
    assert won.count(True) == 1
    assert artifacts.read_config(store, "a") == {"seed": won.index(True)}


def test_an_unknown_run_names_the_known_ones(store):
    with pytest.raises(UserError, match="has no run 'b'; it has: none"):
        artifacts.read_config(store, "b")
    artifacts.claim_run(store, "a", {})
    with pytest.raises(UserError, match="has no run 'b'; it has: a"):
        artifacts.read_config(store, "b")


@pytest.mark.parametrize("run", ["", "../a", "a/b", ".hidden", "a b"])
def test_a_run_name_is_no_path(store, run):
    with pytest.raises(UserError, match="run name"):
        artifacts.claim_run(store, run, {})


def test_a_name_points_to_its_object_for_good(store):
    one, two = policy(store, "p1"), policy(store, "p2")
    assert artifacts.named(store, "a", "round-000/policy") is None
    artifacts.name(store, "a", "round-000/policy", one)
    artifacts.name(store, "a", "round-000/policy", one)
    assert artifacts.named(store, "a", "round-000/policy") == one
    with pytest.raises(Conflict, match=r"round-000/policy of run 'a' .* is policy/p1 .* would now be policy/p2"):
        artifacts.name(store, "a", "round-000/policy", two)


@pytest.mark.parametrize("path", ["config", "promoted", "../b/x", "/x", "a//b", ""])
def test_a_name_stays_within_its_run(store, path):
    with pytest.raises(ValueError, match="cannot be a name"):
        artifacts.name(store, "a", path, policy(store, "p1"))


def test_a_name_whose_object_is_gone_is_told(store, monkeypatch):
    monkeypatch.setattr(objects, "PUT_BACK_SECONDS", 0.1)
    artifacts.name(store, "a", "x", policy(store, "p1"))
    storage.remove(store, "objects/policy/p1")
    with pytest.raises(UserError, match=r"policy/p1 .* is not there"):
        artifacts.named(store, "a", "x")


def test_what_is_in_another_store_cannot_be_named_or_promoted(store):
    elsewhere = policy("memory://elsewhere", "p1")
    with pytest.raises(UserError, match=r"policy/p1 .* is not there"):
        artifacts.name(store, "a", "x", elsewhere)
    with pytest.raises(UserError, match=r"policy/p1 .* is not there"):
        artifacts.promote(store, "a", elsewhere, 0, None)


def test_promotions_follow_each_other_and_keep_their_history(store):
    assert artifacts.promoted(store, "a") is None
    first = artifacts.promote(store, "a", policy(store, "p0"), 0, None)
    second = artifacts.promote(store, "a", policy(store, "p2"), 2, first)
    assert artifacts.promoted(store, "a") == second
    assert (second.round, second.artifact) == (2, policy(store, "p2"))
    assert [(turn.round, turn.to.recipe) for turn in second.history] == [(0, "p0")]


def test_a_late_promotion_is_a_conflict_and_changes_nothing(store):
    first = artifacts.promote(store, "a", policy(store, "p0"), 0, None)
    second = artifacts.promote(store, "a", policy(store, "p1"), 1, first)
    with pytest.raises(Conflict, match=r"promoted policy/p1 .* in round 1, expected policy/p0 .* in round 0"):
        artifacts.promote(store, "a", policy(store, "p9"), 1, first)
    with pytest.raises(Conflict, match="expected nothing before round 0"):
        artifacts.promote(store, "a", policy(store, "p9"), 0, None)
    assert artifacts.promoted(store, "a") == second


def test_a_run_that_starts_again_repeats_its_promotions(store):
    """Every earlier answer is given again, as it was, while the pointer stays where it is."""
    first = artifacts.promote(store, "a", policy(store, "p0"), 0, None)
    second = artifacts.promote(store, "a", policy(store, "p1"), 1, first)
    assert artifacts.promote(store, "a", policy(store, "p0"), 0, None) == first
    assert artifacts.promote(store, "a", policy(store, "p1"), 1, first) == second
    assert artifacts.promoted(store, "a") == second


def test_a_lost_answer_to_a_promotion_is_found_out(store, monkeypatch):
    first = artifacts.promote(store, "a", policy(store, "p0"), 0, None)
    swap = storage.swap
    monkeypatch.setattr(storage, "swap", lambda *args: swap(*args) and False)
    second = artifacts.promote(store, "a", policy(store, "p1"), 1, first)
    assert artifacts.promoted(store, "a") == second


@pytest.mark.parametrize("begun", [False, True])
def test_of_eight_racing_promotions_one_moves_the_pointer(store, begun):
    policies = [policy(store, f"p{number}") for number in range(9)]
    start = artifacts.promote(store, "a", policies[8], 0, None) if begun else None

    def move(number: int) -> bool:
        try:
            artifacts.promote(store, "a", policies[number], 1, start)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(move, range(8)))
    assert won.count(True) == 1
    now = artifacts.promoted(store, "a")
    assert now is not None
    assert now.artifact == policies[won.index(True)]


def test_the_ratchet_only_moves_forward(store):
    first = artifacts.promote(store, "a", policy(store, "p3"), 3, None)
    with pytest.raises(ValueError, match="round 3 cannot follow round 3"):
        artifacts.promote(store, "a", policy(store, "p4"), 3, first)
