"""Whole runs on the real engines and a real S3 server, killed with -9 at random instants: driver, actors, training
workers and the server. Every run comes to the end of an undisturbed one.

Which process is killed after how many seconds follows from ``SEED``; what it was doing at that instant depends on the
machine. Half an hour on two cores, so it runs by path alone (``make long``), and prints what was killed where.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from server_fixtures import S3Server
from whole_runs import RECIPE, digests, ratchet

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.s3, pytest.mark.timeout(5400)]

SEED, KILLS, PER_RUN = 7, 30, 6
ACTORS = {"sampler": "ray::VllmActor", "rewards": "ray::ModelActor", "training worker": "ray::RayTrainWorker"}
TARGETS = ("driver", *ACTORS, "S3 server", "S3 server and its disk")
STARTS = 40
"""Drivers that a run may need: one for each kill and each time the server was away for longer than they wait."""


class Kill(NamedTuple):
    run: int
    target: str
    second: float
    """Since the run began."""
    doing: str
    """The last line that its driver had printed."""


class Victim:
    """A run, its drivers one after another, and what is done to them."""

    def __init__(self, number: int, folder: Path, server: S3Server, prefect: str, rng: random.Random):
        self.number, self.folder, self.server, self.rng = number, folder, server, rng
        self.store = f"{server.bucket()}/runs"
        self.kills: list[Kill] = []
        self.errors: list[str] = []
        self._env = {**server.env, "PREFECT_API_URL": prefect}
        self._began = time.monotonic()
        self._logs: list[Path] = []
        folder.mkdir()

    def live(self, kills: int) -> float:
        """Run to the end through so many kills; seconds it took."""
        for _ in range(STARTS):
            driver = self._start()
            while driver.poll() is None and len(self.kills) < kills:
                self._harm(driver)
            if driver.wait(timeout=1500) == 0:
                return time.monotonic() - self._began
            if driver.returncode != -signal.SIGKILL:
                self.errors.append(self._said()[-1])
        raise AssertionError(f"run {self.number} did not end in {STARTS} starts: {self.errors}")

    def _start(self) -> "subprocess.Popen[str]":
        self._logs.append(self.folder / f"driver-{len(self._logs)}.log")
        return ratchet(self.folder, "run", str(RECIPE), "--store", self.store, log=self._logs[-1], env=self._env)

    def _harm(self, driver: "subprocess.Popen[str]") -> None:
        """Wait for a while and until the target is there, and kill it; nothing where the run ends meanwhile."""
        target, wait = self.rng.choice(TARGETS), self.rng.uniform(2, 20)
        end = time.monotonic() + wait
        while time.monotonic() < end or not self._there(target, driver):
            if driver.poll() is not None:
                return
            time.sleep(0.05)
        told = [line for line in self._said() if line.startswith(("start", "round"))]  # and not Ray's notes of the dead
        at, doing = time.monotonic() - self._began, (told or ["starting"])[-1]
        self._kill(target, driver)
        self.kills.append(Kill(self.number, target, at, " ".join(doing.split())[:60]))

    def _there(self, target: str, driver: "subprocess.Popen[str]") -> list[int]:
        """Processes of which one would be killed."""
        if target not in ACTORS:
            return [driver.pid]
        return [pid for pid, title in _descendants(driver.pid) if title.startswith(ACTORS[target])]

    def _kill(self, target: str, driver: "subprocess.Popen[str]") -> None:
        match target:
            case "driver":
                driver.kill()
                driver.wait()
                if self.rng.random() < 0.5:  # and so is its machine
                    shutil.rmtree(self.folder / "cache", ignore_errors=True)
            case "S3 server":
                self.server.gateway.kill_gateway()
                time.sleep(self.rng.uniform(0, 3))
                self.server.gateway.start_gateway()
            case "S3 server and its disk":
                self.server.gateway.kill()
                self.server.gateway.start()
            case _:
                with suppress(ProcessLookupError, IndexError):  # it has ended by itself
                    os.kill(self.rng.choice(self._there(target, driver)), signal.SIGKILL)

    def _said(self) -> list[str]:
        return [line for line in self._logs[-1].read_text(errors="replace").splitlines() if line.strip()]


def _descendants(pid: int) -> Iterator[tuple[int, str]]:
    try:
        for process in psutil.Process(pid).children(recursive=True):
            yield process.pid, " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return


def test_runs_that_are_killed_at_random_end_like_an_undisturbed_one(
    tmp_path: Path, s3_server: S3Server, prefect_server: str, monkeypatch: pytest.MonkeyPatch
):
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    rng = random.Random(SEED)
    undisturbed = Victim(0, tmp_path / "undisturbed", s3_server, prefect_server, rng)
    alone = undisturbed.live(kills=0)
    expected = digests(undisturbed.store)
    kills: list[Kill] = []
    while len(kills) < KILLS:
        victim = Victim(len(kills), tmp_path / f"run-{len(kills)}", s3_server, prefect_server, rng)
        seconds = victim.live(kills=min(PER_RUN, KILLS - len(kills)))
        kills += victim.kills
        _tell(victim, seconds - alone)
        assert digests(victim.store) == expected
        assert victim.kills, "the run ended before anything was killed"
        verified = ratchet(tmp_path, "verify", victim.store, env=s3_server.env)
        said, _ = verified.communicate(timeout=300)
        assert verified.returncode == 0, said


def _tell(victim: Victim, lost: float) -> None:
    for kill in victim.kills:
        print(f"\nrun {kill.run:2d}  {kill.second:6.1f} s  {kill.target:24s} {kill.doing}", end="")
    print(f"\nrun {victim.number:2d}  {len(victim.kills)} kills cost {lost:.0f} s more than none", end="")
    for error in victim.errors:
        print(f"\n        a driver ended with: {error[:200]}", end="")
