"""Sixteen processes at once: one record, one history, one configuration, on every store that passes the probe."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import boto3
import pytest
import racing
from moto.s3.models import S3Backend
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
from racing import WRITERS, Refused

from alignment.errors import UserError
from alignment.types import Artifact, Dropped
from infra import artifacts, conditional
from infra.conditional import version_of

ROUNDS = 20
AS_IT_IS = S3Response.put_object
GAP = 0.002
"""Seconds between check and write in a store with the race defect."""


class Place(NamedTuple):
    store: str
    environment: Mapping[str, str]
    """What its clients need."""
    rounds: int
    """The imitation answers a few dozen requests a second."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with racing.racers() as pool:
        yield pool


@pytest.fixture(scope="module")
def moto() -> Iterator[dict[str, str]]:
    """An S3 imitation that takes one PUT at a time: by itself it checks the condition, and then writes."""
    one_at_a_time = threading.Lock()

    def locked(response: S3Response) -> Any:
        with one_at_a_time:
            return AS_IT_IS(response)

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", locked)
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
            return Place(str(tmp_path / "store"), {}, ROUNDS)
        case "moto":
            environment = request.getfixturevalue("moto")
            return Place(in_bucket(environment, monkeypatch), environment, 4)
        case _:
            server = request.getfixturevalue("s3_server")
            return Place(f"{request.getfixturevalue('s3_bucket')}/prefix", server.env, ROUNDS)


def in_bucket(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/prefix"


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
    for number in range(place.rounds):
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
    for number in range(place.rounds):
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
    for number in range(place.rounds):
        run, configs = f"run{number}", [{"seed": 0, "rounds": 3}, {"seed": 1, "rounds": 3}] * (WRITERS // 2)
        tasks = [(place.environment, place.store, run, config) for config in configs]
        claimed = pool.starmap(racing.claim, tasks, chunksize=1)
        stands = artifacts.read_config(place.store, run)
        assert [one is None for one in claimed] == [config == stands for config in configs], number
        seeds = Counter(one.told.count("seed is") for one in claimed if one is not None)
        assert seeds == {1: WRITERS // 2}


def test_a_folder_that_checks_and_then_writes_is_refused_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def created(path: Path, data: bytes, root: Path) -> bool:
        if path.exists():
            return False
        time.sleep(GAP)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return True

    monkeypatch.setattr(conditional, "create_local", created)
    for _ in range(ROUNDS):
        with pytest.raises(UserError, match=r"\d of 8 racing writers were told that their create won, and one must"):
            artifacts.check_store(str(tmp_path / "store"))


def test_a_folder_that_compares_and_then_swaps_is_refused_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def swapped(path: Path, data: bytes, version: str, root: Path) -> bool:
        if version_of(path.read_bytes()) != version:
            return False
        time.sleep(GAP)
        path.write_bytes(data)
        return True

    monkeypatch.setattr(conditional, "swap_local", swapped)
    for _ in range(ROUNDS):
        with pytest.raises(UserError, match=r"\d of 8 racing writers were told that their swap won, and one must"):
            artifacts.check_store(str(tmp_path / "store"))


def test_a_server_that_checks_and_then_writes_is_refused_every_time(
    moto: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    """The imitation as it is, with the time between its check and its write drawn out. Creates and swaps have the same
    defect there, so where the one happens to come off, the other tells."""
    write = S3Backend.put_object

    def later(backend: S3Backend, *args: Any, **more: Any) -> Any:
        time.sleep(10 * GAP)
        return write(backend, *args, **more)

    monkeypatch.setattr(S3Response, "put_object", AS_IT_IS)
    monkeypatch.setattr(S3Backend, "put_object", later)
    store = in_bucket(moto, monkeypatch)
    for _ in range(ROUNDS):
        with pytest.raises(
            UserError, match=r"\d of 8 racing writers were told that their (create|swap) won, and one must"
        ):
            artifacts.check_store(store)
