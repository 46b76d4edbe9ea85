"""A run whose driver is killed with -9, again and again, comes to the same end, on another machine in the end; on S3,
where a server is installed."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ceph_gateway import PROGRAMS
from programs import find_program
from whole_runs import RECIPE, ROUNDS, digests, ratchet, recipes, run_tiny

from infra import file_systems
from tasks.history import NamedStep, read_steps
from tasks.steps import Place

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The store of the run: a bucket, or a folder where there is no server for one."""
    if any(find_program(program) is None for program in PROGRAMS):
        yield str(folder / "runs")
        return
    server = request.getfixturevalue("s3_server")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield f"{server.bucket()}/ratchet"


@pytest.fixture(scope="module")
def killed(prefect_server: str, folder: Path, store: str) -> str:
    """What the last driver printed, after kill -9 while shards of completions, then of scores, were there but not all,
    then between optimiser steps. By then the machine is gone: nothing of what it kept for itself is left."""
    moments: dict[str, Callable[[], int]] = {
        "generate": lambda: _shards(store, "completions"),
        "score": lambda: _shards(store, "groups"),
        "train": lambda: _steps_kept(store),
    }
    environment = {"PREFECT_API_URL": prefect_server}
    for step, progress in moments.items():
        _kill_after_two_more(folder, store, step, progress, environment)
    shutil.rmtree(folder / "cache")
    return run_tiny(folder, store, env=environment)


def test_it_ends_with_the_digests_of_an_undisturbed_run(undisturbed: Path, killed: str, store: str):
    """And on one worker's CPU these are those of the weights, too."""
    assert digests(store) == digests(str(undisturbed / "runs")), killed


def test_finished_shards_are_not_made_again(killed: str, store: str):
    kept = [step.artifact.facts for step in _steps(store) if step.artifact.facts.get("shards_found")]
    assert kept, killed
    for facts in kept:
        if "prompts" in facts:
            assert facts["shards_found"] + facts["shards_made"] == -(-facts["prompts"] // 4)


def test_training_goes_on_from_the_checkpoint_in_the_store(killed: str, store: str):
    trained = [
        step.artifact
        for step in _steps(store)
        if step.artifact.kind == "policy" and "resumed_from" in step.artifact.facts
    ]
    resumed = [int(str(artifact.facts["resumed_from"])) for artifact in trained]
    assert max(resumed) >= 2, killed
    assert _steps_kept(store) == 0


@pytest.mark.s3
def test_a_run_on_s3_has_the_recipes_and_digests_of_one_in_a_folder(
    s3_server: object, undisturbed: Path, killed: str, store: str
):
    assert store.startswith("s3://")
    local = str(undisturbed / "runs")
    assert recipes(store) == recipes(local)
    assert digests(store) == digests(local), killed


def _steps(store: str) -> list[NamedStep]:
    return [s for f in ROUNDS for s in read_steps(Place(store=store, run="tiny", folder=f)).values()]


def _shards(store: str, kind: str) -> int:
    """Shards of objects that are not whole."""
    fs, root = file_systems.open_store(store)
    names = fs.find(f"{root}/objects/{kind}")
    whole = {name.rsplit("/", 1)[0] for name in names if name.endswith("/record.json")}
    shards = [name for name in names if name.endswith(".json") and "/shard-" in name]
    return sum(name.rsplit("/", 1)[0] not in whole for name in shards)


def _steps_kept(store: str) -> int:
    """Optimiser steps of the checkpoint that is in the store, of the one job that has any."""
    fs, root = file_systems.open_store(store)
    kept = [name.rsplit("/", 1)[1] for name in fs.find(f"{root}/objects/policy") if "/checkpoint-0" in name]
    return max((int(name.removeprefix("checkpoint-").removesuffix(".json")) for name in kept), default=0)


def _kill_after_two_more(
    folder: Path, store: str, step: str, progress: Callable[[], int], environment: dict[str, str]
) -> None:
    log = folder / f"killed-in-{step}.log"
    driver = ratchet(folder, "run", str(RECIPE), "--store", store, log=log, env=environment)
    before, deadline = progress(), time.monotonic() + 900
    try:
        while progress() < before + 2:
            assert driver.poll() is None, f"ended before {step}: {log.read_text()}"
            assert time.monotonic() < deadline, f"{step} was not reached"
            time.sleep(0.03)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
