"""Claims about methods, as inequalities that an interval decides."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from alignment.metrics import Floats, Interval, paired_bootstrap
from alignment.types import Record

Verdict = Literal["holds", "does not hold", "not resolved"]

RESAMPLES = 2000
"""Of the prompts, for an interval over prompts."""

T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
    *(2.040, 2.037, 2.035, 2.032, 2.030, 2.028, 2.026, 2.024, 2.023, 2.021, 2.020, 2.018, 2.017, 2.015, 2.014),
)
"""0.975 quantiles of Student's t for 1 to 45 degrees of freedom: numpy has none."""


class Claim(NamedTuple):
    """A number and the open range in which it must lie."""

    name: str
    """Method first: ``rso R1 sampling source``."""
    inequality: str
    paper: str
    """The figure reported for it, and by whom: the method's paper, or an earlier measurement on such a testbed."""
    above: float = -math.inf
    below: float = math.inf
    testbed: tuple[float, float] | None = None
    """95% interval of the earlier measurement, where there is one."""

    @classmethod
    def positive(cls, name: str, inequality: str, paper: str, testbed: tuple[float, float] | None = None) -> "Claim":
        return cls(name, inequality, paper, above=0, testbed=testbed)

    @classmethod
    def negative(cls, name: str, inequality: str, paper: str, testbed: tuple[float, float] | None = None) -> "Claim":
        return cls(name, inequality, paper, below=0, testbed=testbed)

    @classmethod
    def within(
        cls, bound: float, name: str, inequality: str, paper: str, testbed: tuple[float, float] | None = None
    ) -> "Claim":
        """No further from 0 than ``bound``."""
        return cls(name, inequality, paper, -bound, bound, testbed)


class Experiment(NamedTuple):
    """One simulation and all the claims that are read off it."""

    claims: tuple[Claim, ...]
    measure: Callable[[int], Mapping[str, float]]
    """One value per claim name, from one seed. Differences are paired within the seed. NaN is "not measured"."""
    seeds: int


class Result(Record):
    """A claim and what was measured."""

    name: str
    inequality: str
    paper: str
    ours: float | None
    """Mean over seeds, or over prompts; None if some seed could not be measured, which also leaves the claim
    unresolved."""
    low: float | None
    high: float | None
    """Ends of its 95% interval, one claim at a time: over seeds Student's t, over prompts the bootstrap."""
    verdict: Verdict
    seconds: float
    """Its share of the experiment's seconds, summed over seeds, or of its runs' seconds."""


def interval(values: Sequence[float]) -> Interval:
    """(mean, low, high) of 2 to 46 independent values: mean ± t(n - 1) sd / sqrt(n), with 95% confidence."""
    if not 2 <= len(values) <= len(T_975) + 1:
        raise ValueError(f"an interval needs 2 to {len(T_975) + 1} values, not {len(values)}")
    mean = float(np.mean(values))
    half = T_975[len(values) - 2] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def verdict(claim: Claim, low: float, high: float) -> Verdict:
    """Whether the interval lies inside the claim's range, outside it, or across an end."""
    if low > claim.above and high < claim.below:
        return "holds"
    return "does not hold" if high <= claim.above or low >= claim.below else "not resolved"


def judge(experiment: Experiment, by_seed: Sequence[Mapping[str, float]], seconds: float) -> list[Result]:
    """One result per claim, from the values of every seed."""
    share = seconds / len(experiment.claims)
    return [_result(claim, [values[claim.name] for values in by_seed], share) for claim in experiment.claims]


def matching(experiments: Iterable[Experiment], wanted: str | None) -> list[Experiment]:
    """The experiments cut down to claims whose name contains ``wanted``; those left without a claim are left out."""
    cut = (e._replace(claims=tuple(c for c in e.claims if wanted is None or wanted in c.name)) for e in experiments)
    return [e for e in cut if e.claims]


def judge_prompts(claim: Claim, values_P: Floats, seconds: float) -> Result:
    """The result of a claim that has one value per prompt, (P,), each paired already.

    Fewer than two prompts leave it unresolved. The interval is over prompts: it does not hold what another training
    seed would have changed.
    """
    if len(values_P) < 2:
        return _told(claim, None, seconds)
    return _told(claim, paired_bootstrap(values_P, np.random.default_rng(0), RESAMPLES), seconds)


def _result(claim: Claim, values: Sequence[float], seconds: float) -> Result:
    return _told(claim, interval(values) if np.isfinite(values).all() else None, seconds)


def _told(claim: Claim, measured: Interval | None, seconds: float) -> Result:
    mean, low, high = measured or (None, None, None)
    return Result(
        name=claim.name,
        inequality=claim.inequality,
        paper=claim.paper,
        ours=mean,
        low=low,
        high=high,
        verdict="not resolved" if low is None or high is None else verdict(claim, low, high),
        seconds=round(seconds, 3),
    )
