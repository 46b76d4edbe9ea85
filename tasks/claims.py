"""Claims that were asked for, and those on arrays measured: every seed, on all the cores this process may use."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from alignment.errors import UserError
from alignment.testbed.claims import Claim, Experiment, Result, judge, matching
from alignment.testbed.claims_sandbox import READINGS, matching_readings
from alignment.testbed.outcomes import Outcomes, Reading, read_off
from alignment.testbed.quick import EXPERIMENTS
from tasks import console
from tasks.text_files import write_text


class Finding(NamedTuple):
    claim: Claim
    result: Result

    @property
    def method(self) -> str:
        return self.claim.name.split()[0]

    @property
    def in_sandbox(self) -> bool:
        return self.claim.name.split()[1:2] == ["sandbox"]


class Asked(NamedTuple):
    """What is to be measured."""

    experiments: list[Experiment]
    """On arrays."""
    readings: list[Reading]
    """In the sandbox."""


def asked_for(only: str | None, *, quick: bool) -> Asked:
    """The claims whose name contains ``only``, all where it is None; ``quick`` leaves the sandbox out.

    UserError where no claim is named so.
    """
    asked = Asked(matching(EXPERIMENTS, only), [] if quick else matching_readings(only))
    if not asked.experiments and not asked.readings:
        names = [c.name for e in EXPERIMENTS for c in e.claims] + [r.claim.name for r in READINGS if not quick]
        raise UserError(f"claims: --only {only!r} is part of no claim's name; there are {', '.join(names)}")
    return asked


def sandbox_findings(readings: Sequence[Reading], outcomes: Outcomes) -> list[Finding]:
    return [Finding(claim, result) for claim, result in read_off(readings, outcomes)]


def measure(experiments: Sequence[Experiment]) -> Iterator[list[Finding]]:
    """Each experiment's findings, in order, as soon as its last seed is measured."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores, so none needs threads of its own
    workers = len(os.sched_getaffinity(0))
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit whatever threads are running here
    with ProcessPoolExecutor(workers, mp_context=fresh) as pool:
        asked = [(e, [pool.submit(_timed, e.measure, seed) for seed in range(e.seeds)]) for e in experiments]
        try:
            for experiment, futures in asked:
                timed = [future.result() for future in futures]
                results = judge(experiment, [values for values, _ in timed], sum(seconds for _, seconds in timed))
                yield [Finding(claim, result) for claim, result in zip(experiment.claims, results, strict=True)]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def measured(experiments: Sequence[Experiment]) -> list[Finding]:
    """All findings of ``measure``, with a progress bar."""
    findings: list[Finding] = []
    if experiments:
        with console.progress("claims", sum(len(e.claims) for e in experiments)) as advance:
            for found in measure(experiments):
                findings += found
                advance(len(findings), found[-1].claim.name)
    return findings


def _timed(measure: Callable[[int], Mapping[str, float]], seed: int) -> tuple[Mapping[str, float], float]:
    start = time.perf_counter()
    values = measure(seed)
    return values, time.perf_counter() - start


def write_json(findings: Sequence[Finding], path: Path) -> None:
    """``{"claims": [...]}``, one object per claim."""
    write_text(path, json.dumps({"claims": [f.result.model_dump() for f in findings]}, indent=1) + "\n")
