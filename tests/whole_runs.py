"""Drivers of whole runs, as processes of their own, and what they left in the store."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tasks.history import read_steps
from tasks.steps import Place

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "tests/flows/tiny.toml"
ROUNDS = ("start", "round-000", "round-001")


def ratchet(
    folder: Path, *words: str, log: Path | None = None, env: Mapping[str, str] | None = None
) -> "subprocess.Popen[str]":
    """A driver in a folder of its own, with its own cache, so that no run sees another's checkpoints.

    Without a ``log`` its output is piped; a killed driver's orphans would hold that pipe for a minute.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words],
        cwd=folder,
        env={**_environment(folder), **(env or {})},
        text=True,
        stdout=log.open("w") if log else subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _environment(folder: Path) -> dict[str, str]:
    own = {"PYTHONPATH": ROOT, "RATCHET_CACHE": folder / "cache", "PREFECT_HOME": folder / "prefect"}
    return {**os.environ, **{name: str(value) for name, value in own.items()}}


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    said: str


class Driver:
    """One process for many commands (``one_driver.py``); most of a small command's time is what it imports."""

    def __init__(self, folder: Path):
        self._out = folder / "out.txt"
        with (folder / "engines.txt").open("w") as engines:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests/flows/one_driver.py")],
                env=_environment(folder),
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=engines,
            )

    def __call__(self, cwd: Path, *words: str) -> Done:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps({"words": words, "cwd": str(cwd), "out": str(self._out)}), file=self._process.stdin, flush=True
        )
        status = self._process.stdout.readline()
        said = self._out.read_text() if self._out.exists() else ""
        assert status, f"the driver died of {' '.join(words)}\n{said}"
        return Done(int(status), said)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def run_tiny(folder: Path, store: str, *words: str, env: Mapping[str, str] | None = None) -> str:
    driver = ratchet(folder, "run", str(RECIPE), "--store", store, *words, env=env)
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
