"""Sixteen processes at once: one record, one history, one configuration, on every store that passes the probe."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.pool import Pool
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import boto3
import pytest
import racing
from moto.server import ThreadedMotoServer
from racing import WRITERS, Refused

from alignment.errors import UserError
from alignment.types import Artifact, Dropped
from infra import artifacts, conditional, storage

ROUNDS = 20


class Place(NamedTuple):
    store: str
    environment: Mapping[str, str]
    """What its clients need."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with racing.racers() as pool:
        yield pool


@pytest.fixture(scope="module")
def moto() -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture(params=["local", "moto", pytest.param("gateway", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    match request.param:
        case "local":
            return Place(str(tmp_path / "store"), {})
        case "moto":
            environment = request.getfixturevalue("moto")
            bucket = f"s3://test-{uuid4().hex}"
        case _:
            server = request.getfixturevalue("s3_server")
            environment, bucket = server.env, server.bucket()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if request.param == "moto":
        boto3.client("s3").create_bucket(Bucket=bucket.removeprefix("s3://"))
    return Place(f"{bucket}/prefix", environment)


def policy(place: Place, recipe: str) -> Artifact:
    rows = [Dropped(step="select", item=recipe, reason="tie")]
    return artifacts.commit_rows(place.store, "policy", recipe, rows, Dropped)


def test_sixteen_processes_that_commit_equal_work_get_one_artifact(pool: Pool, place: Place):
    for number in range(ROUNDS):
        recipe = f"equal{number}"
        tasks = [(place.environment, place.store, recipe, ["a", "b"])] * WRITERS
        made = pool.starmap(racing.commit, tasks, chunksize=1)
        assert len({one.model_dump_json() for one in made}) == 1, number
        assert made[0] == artifacts.find(place.store, "pairs", recipe)
        assert [row.item for row in artifacts.read_rows(made[0], Dropped)] == ["a", "b"]


def test_of_sixteen_processes_with_two_outcomes_those_of_the_first_get_it_and_the_others_are_told(
    pool: Pool, place: Place
):
    for number in range(ROUNDS):
        recipe, words = f"unequal{number}", ["heads", "tails"] * (WRITERS // 2)
        tasks = [(place.environment, place.store, recipe, [word]) for word in words]
        made = pool.starmap(racing.commit, tasks, chunksize=1)
        found = artifacts.find(place.store, "pairs", recipe)
        assert found is not None
        (row,) = artifacts.read_rows(found, Dropped)
        assert [one == found for one in made] == [word == row.item for word in words], number
        assert sum(isinstance(one, Refused) for one in made) == WRITERS // 2


def test_of_sixteen_processes_that_promote_one_moves_the_pointer(pool: Pool, place: Place):
    policies = [policy(place, f"p{number}") for number in range(WRITERS)]
    for number in range(ROUNDS // 2):
        before = artifacts.promoted(place.store, "run")
        tasks = [(place.environment, place.store, "run", each) for each in policies]
        made = pool.starmap(racing.promote_once, tasks, chunksize=1)
        won = [one for one in made if not isinstance(one, Refused)]
        now = artifacts.promoted(place.store, "run")
        assert won == [now], number
        assert now is not None
        assert now.history == (before.turns().turns if before else ())
        assert now.round == number


def test_sixteen_processes_that_promote_until_they_succeed_lose_no_promotion(pool: Pool, place: Place):
    policies = [policy(place, f"p{number}") for number in range(WRITERS)]
    tasks = [(place.environment, place.store, "run", each) for each in policies]
    refused = pool.starmap(racing.promote_at_last, tasks, chunksize=1)
    now = artifacts.promoted(place.store, "run")
    assert now is not None
    turns = now.turns().turns
    assert [turn.round for turn in turns] == list(range(WRITERS))
    assert sorted(turn.to.recipe for turn in turns) == sorted(each.recipe for each in policies)
    assert sum(refused) > 0, "they did not meet"


def test_of_sixteen_processes_that_claim_a_name_those_of_one_configuration_get_it(pool: Pool, place: Place):
    for number in range(ROUNDS):
        run, configs = f"run{number}", [{"seed": 0, "rounds": 3}, {"seed": 1, "rounds": 3}] * (WRITERS // 2)
        tasks = [(place.environment, place.store, run, config) for config in configs]
        claimed = pool.starmap(racing.claim, tasks, chunksize=1)
        stands = artifacts.read_config(place.store, run)
        assert [one is None for one in claimed] == [config == stands for config in configs], number
        seeds = Counter(one.told.count("seed is") for one in claimed if one is not None)
        assert seeds == {1: WRITERS // 2}
