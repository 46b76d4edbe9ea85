"""Runs whose driver is killed with -9, again and again, come to the same end."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from whole_runs import RECIPE, ROUNDS, digests, ratchet, run_tiny

from tasks.history import read_steps
from tasks.steps import Place

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_killed_drivers_lose_no_finished_shard_and_change_no_digest(
    undisturbed: Path, tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
):
    """kill -9 while shards of completions, then of scores, are there but not all, then between optimiser steps."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
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
    before, deadline = progress(), time.monotonic() + 900
    try:
        while progress() < before + 2:
            assert driver.poll() is None, f"ended before {step}: {(folder / 'killed.log').read_text()}"
            assert time.monotonic() < deadline, f"{step} was not reached"
            time.sleep(0.005)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
