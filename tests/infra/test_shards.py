"""Rows committed in pieces: the pieces survive a crash, and the whole does not depend on them."""

from itertools import pairwise

import numpy as np
import pytest
from small_rows import commit, dropped

from alignment.errors import Conflict, UserError
from alignment.types import Dropped
from infra import artifacts, storage


def test_shards_make_the_object_that_whole_rows_make(store):
    """One, two or three shards of the same four rows: one digest."""
    rows, digests = dropped("a", "b", "c", "d"), set()
    for recipe, cuts in (("s1", [4]), ("s2", [1, 3]), ("s3", [2, 0, 2])):
        ends = np.cumsum([0, *cuts])
        shards = [
            artifacts.commit_shard(store, "pairs", recipe, number, rows[start:end], Dropped)
            for number, (start, end) in enumerate(pairwise(ends))
        ]
        made = artifacts.commit_shards(store, "pairs", recipe, shards, facts={"shards": len(shards)})
        assert list(artifacts.read_rows(made, Dropped)) == rows
        digests.add(made.digest)
    assert digests == {commit(store, "a", "b", "c", "d").digest}


def test_a_finished_shard_is_found_before_the_object_is_whole(store):
    assert artifacts.find_shard(store, "pairs", "r1", 0) is None
    shard = artifacts.commit_shard(store, "pairs", "r1", 0, dropped("a"), Dropped, facts={"tokens": 7})
    assert artifacts.find_shard(store, "pairs", "r1", 0) == shard
    assert shard.facts == {"tokens": 7}
    assert artifacts.read_shard(store, "pairs", "r1", shard, Dropped) == dropped("a")
    assert artifacts.find(store, "pairs", "r1") is None


def test_a_shard_made_twice_is_one_and_another_is_a_conflict(store):
    shard = artifacts.commit_shard(store, "pairs", "r1", 0, dropped("a"), Dropped)
    assert artifacts.commit_shard(store, "pairs", "r1", 0, dropped("a"), Dropped) == shard
    with pytest.raises(Conflict, match="shard 0 of pairs/r1 holds digest"):
        artifacts.commit_shard(store, "pairs", "r1", 0, dropped("b"), Dropped)


def test_shards_that_are_not_all_there_make_nothing(store):
    one = artifacts.commit_shard(store, "pairs", "r1", 1, dropped("b"), Dropped)
    for shards in ([], [one]):
        with pytest.raises(ValueError, match="not 0, 1"):
            artifacts.commit_shards(store, "pairs", "r1", shards)


def test_a_shard_whose_file_is_gone_makes_nothing(store):
    shard = artifacts.commit_shard(store, "pairs", "r1", 0, dropped("a"), Dropped)
    storage.remove(store, f"objects/pairs/r1/{shard.file.path}")
    with pytest.raises(UserError, match="has None bytes"):
        artifacts.commit_shards(store, "pairs", "r1", [shard])
    assert artifacts.find(store, "pairs", "r1") is None
