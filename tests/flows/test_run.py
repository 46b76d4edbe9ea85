"""The whole stack on this machine: a run, the same run again, and runs whose driver is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.history import read_run, read_steps
from tasks.steps import Place

pytestmark = [pytest.mark.engine, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Path(__file__).parent / "tiny.toml"
long = pytest.mark.skipif(
    "RATCHET_LONG_TESTS" not in os.environ, reason="a whole run more: set RATCHET_LONG_TESTS=1 to have it"
)
ROUNDS = ("start", "round-000", "round-001")


def ratchet(folder: Path, *words: str, log: Path | None = None) -> "subprocess.Popen[str]":
    """A driver in a folder of its own, with its own cache, so that no run sees another's checkpoints.

    Without a ``log`` its output is piped; a killed driver's orphans would hold that pipe for a minute.
    """
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RATCHET_CACHE": str(folder / "cache"),
        "PREFECT_HOME": str(folder / "prefect"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words],
        cwd=folder,
        env=environment,
        text=True,
        stdout=log.open("w") if log else subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run_tiny(folder: Path, store: str, *words: str) -> str:
    driver = ratchet(folder, "run", str(RECIPE), "--store", store, *words)
    said, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    return said


def digests(store: str, run: str = "tiny") -> dict[str, str]:
    return {
        f"{folder}/{name}": step.artifact.digest
        for folder in ROUNDS
        for name, step in read_steps(Place(store=store, run=run, folder=folder)).items()
    }


def recipes(store: str, run: str = "tiny") -> dict[str, str]:
    return {
        f"{folder}/{name}": step.artifact.recipe
        for folder in ROUNDS
        for name, step in read_steps(Place(store=store, run=run, folder=folder)).items()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_tiny(folder, str(folder / "runs"))
    return folder


def test_a_run_goes_through_every_step_of_every_round(undisturbed: Path):
    summary = read_run(str(undisturbed / "runs"), "tiny")
    assert [r.round for r in summary.rounds] == [0, 1]
    for r in summary.rounds:
        assert {"generate", "score", "select", "train", "answers", "answers-scored"} <= set(r.steps)
        assert r.metrics["kl_initial"] is not None
        assert r.metrics["tokens"]
    assert (undisturbed / "tiny.html").read_text().startswith("<!doctype html>")


def test_the_first_loss_is_log_two_where_training_starts_from_its_reference(undisturbed: Path):
    """Policy and reference are the same, so every margin is 0 and -log sigmoid(0) = log 2."""
    train = read_steps(Place(store=str(undisturbed / "runs"), run="tiny", folder="round-000"))["train"]
    assert train.artifact.facts["first_loss"] == pytest.approx(0.6931472, abs=1e-5)


def test_every_probe_is_recorded_and_holds(undisturbed: Path):
    steps = read_steps(Place(store=str(undisturbed / "runs"), run="tiny", folder="round-000"))
    assert set(steps["generate"].artifact.facts["probes"]) == {"weights"}
    assert "reward" in steps["score"].artifact.facts["probes"]
    assert "reload" in steps["train"].artifact.facts["probes"]


def test_the_same_command_again_finds_everything_and_starts_no_engine(undisturbed: Path):
    began = time.monotonic()
    said = run_tiny(undisturbed, str(undisturbed / "runs"))
    assert "made in" not in said
    assert "found" in said
    assert time.monotonic() - began < 120
    assert not list((undisturbed / "cache").glob("training/*"))


def test_show_prints_the_documented_form(undisturbed: Path):
    driver = ratchet(undisturbed, "show", "tiny", "--store", str(undisturbed / "runs"), "--json")
    said, _ = driver.communicate(timeout=60)
    shown = json.loads(said)
    assert set(shown) == {"run", "store", "config", "initial", "rounds"}
    assert set(shown["rounds"][0]) == {"round", "verdict", "reasons", "policy", "steps", "metrics"}
    assert set(shown["rounds"][0]["steps"]["train"]) == {"uri", "recipe", "seconds", "reused"}
    wanted = (
        "reward_mean gold_mean gold_low gold_high win_rate win_rate_low win_rate_high kl_initial length_mean "
        "length_ratio distinct_2 truncated_rate pairs dropped tokens engine_seconds"
    )
    assert set(wanted.split()) <= set(shown["rounds"][0]["metrics"])


def test_the_exported_policy_gives_the_stored_log_probabilities(undisturbed: Path, tmp_path: Path):
    """Plain transformers on the exported folder, against the ``logprobs`` step of the promoted policy's answers."""
    import torch
    from transformers import AutoModelForCausalLM

    from alignment.types import Group, SequenceLogprobs
    from infra import artifacts

    store = str(undisturbed / "runs")
    driver = ratchet(undisturbed, "export", "tiny", str(tmp_path / "out"), "--store", store)
    driver.communicate(timeout=60)
    assert driver.returncode == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    steps = read_steps(Place(store=store, run="tiny", folder="round-001"))
    group = next(iter(artifacts.read_rows(steps["answers"].artifact, Group)))
    stored = next(iter(artifacts.read_rows(steps["answers-logprobs"].artifact, SequenceLogprobs)))
    ids = torch.tensor([[*group.prompt_ids, *group.candidates[0].token_ids]])
    with torch.no_grad():
        logprobs_T = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    plain = logprobs_T[len(group.prompt_ids) - 1 :].sum().item()
    assert plain == pytest.approx(stored.logprobs[0], abs=1e-3)


def test_killed_drivers_lose_no_finished_shard_and_change_no_digest(undisturbed: Path, tmp_path: Path):
    """kill -9 while shards of completions, then of scores, are there but not all, then between optimiser steps."""
    store = tmp_path / "runs"
    for kind in ("policy", "reward_model"):  # what training from scratch made: not what is tested here
        shutil.copytree(undisturbed / "runs" / "objects" / kind, store / "objects" / kind)
    _forget_trained_policies(undisturbed / "runs", store)
    moments: dict[str, Callable[[], int]] = {
        "generate": lambda: _shards(store, "completions"),
        "score": lambda: _shards(store, "groups"),
        "train": lambda: _steps_trained(tmp_path / "cache"),
    }
    for step, progress in moments.items():
        _kill_after_two_more(tmp_path, str(store), step, progress)
    said = run_tiny(tmp_path, str(store))
    assert digests(str(store)) == digests(str(undisturbed / "runs"))
    facts = [
        step.artifact.facts
        for folder in ROUNDS
        for step in read_steps(Place(store=str(store), run="tiny", folder=folder)).values()
    ]
    kept = [f for f in facts if f.get("shards_found")]
    assert kept, said
    for f in kept:
        if "prompts" in f:
            assert f["shards_found"] + f["shards_made"] == -(-f["prompts"] // 4)


def _forget_trained_policies(whole: Path, store: Path) -> None:
    pointer = json.loads((whole / "runs" / "tiny" / "start" / "policy.json").read_text())
    for recipe in (store / "objects" / "policy").iterdir():
        if recipe.name != pointer["recipe"]:
            shutil.rmtree(recipe)


def _shards(store: Path, kind: str) -> int:
    """Shards of objects that are not whole."""
    folders = (store / "objects" / kind).glob("*")
    return sum(len(list(f.glob("shard-*.json"))) for f in folders if not (f / "record.json").exists())


def _steps_trained(cache: Path) -> int:
    return sum(log.read_text().count("\n") for log in cache.glob("training/*/job/metrics.jsonl"))


def _kill_after_two_more(folder: Path, store: str, step: str, progress: Callable[[], int]) -> None:
    driver = ratchet(folder, "run", str(RECIPE), "--store", store, log=folder / "killed.log")
    before, deadline = progress(), time.monotonic() + 400
    try:
        while progress() < before + 2:
            assert driver.poll() is None, f"ended before {step}: {(folder / 'killed.log').read_text()}"
            assert time.monotonic() < deadline, f"{step} was not reached"
            time.sleep(0.005)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()


@long
def test_a_submitted_run_trains_on_the_cluster_and_returns_its_status(undisturbed: Path, ray_head, monkeypatch):
    """Another seed, so that sampling and training happen there; the models trained from scratch are found."""
    for name, value in ray_head.env.items():
        monkeypatch.setenv(name, value)
    store = str(undisturbed / "runs")
    words = ("--address", ray_head.jobs, "--store", store, "--run", "submitted", "--rounds", "1", "--seed", "1")
    driver = ratchet(undisturbed, "submit", str(RECIPE), *words)
    said, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    steps = read_run(store, "submitted").rounds[0].steps
    assert not any(steps[name].reused for name in ("generate", "train", "answers"))


@long
def test_a_served_deployment_runs_the_real_flow(undisturbed: Path, prefect_server: str, monkeypatch):
    """Triggered from the server as its dashboard does; equal work is found, so the run takes seconds."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from test_deploy import _completed, _deployment, until

    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    store = str(undisturbed / "runs")
    words = ("--serve", "--store", store, "--run", "deployed")
    driver = ratchet(undisturbed, "deploy", str(RECIPE), *words)
    try:
        with temporary_settings({PREFECT_API_URL: prefect_server}), get_client(sync_client=True) as client:
            deployment = until(lambda: _deployment(client, "align/deployed"), seconds=90)
            run = client.create_flow_run_from_deployment(deployment.id)
            until(lambda: _completed(client.read_flow_run(run.id)), seconds=240)
    finally:
        driver.terminate()
        driver.communicate()
    assert all(step.reused for r in read_run(store, "deployed").rounds for step in r.steps.values())


@long
@pytest.mark.s3
def test_the_same_recipe_on_s3_gives_the_same_recipes_and_digests(undisturbed: Path, s3_bucket: str, tmp_path: Path):
    store = f"{s3_bucket}/ratchet"
    run_tiny(tmp_path, store)
    assert digests(store) == digests(str(undisturbed / "runs"))
    assert recipes(store) == recipes(str(undisturbed / "runs"))
