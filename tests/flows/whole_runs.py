"""Drivers of whole runs, as processes of their own, and what they left in the store."""

import os
import subprocess
import sys
from pathlib import Path

from tasks.history import read_steps
from tasks.steps import Place

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Path(__file__).parent / "tiny.toml"
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
    said, _ = driver.communicate(timeout=1500)
    assert driver.returncode == 0, said
    return said


def digests(store: str, run: str = "tiny", folders: tuple[str, ...] = ROUNDS) -> dict[str, str]:
    return {
        f"{folder}/{name}": step.artifact.digest
        for folder in folders
        for name, step in read_steps(Place(store=store, run=run, folder=folder)).items()
    }


def recipes(store: str, run: str = "tiny", folders: tuple[str, ...] = ROUNDS) -> dict[str, str]:
    return {
        f"{folder}/{name}": step.artifact.recipe
        for folder in folders
        for name, step in read_steps(Place(store=store, run=run, folder=folder)).items()
    }
