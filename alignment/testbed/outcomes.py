"""What the sandbox's cells came to, and how claims are read off them prompt by prompt."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from alignment.metrics import Floats
from alignment.summary import Interval
from alignment.testbed.cells import ANCHOR, PLAIN, Cell
from alignment.testbed.claims import Claim, Result, judge_prompts
from alignment.types import Record

Measure = Literal["best", "trained"]


class Outcome(Record):
    """What one cell came to."""

    best: Mapping[str, float]
    """By training prompt, gold of the completion with the highest reward. A prompt is left out where no completion has
    a reward, or all were cut at their token limit or are empty."""
    trained: Mapping[str, float]
    """By held-out prompt, mean gold of the answers of the policy that the last round trained."""
    completions: float
    """Per training prompt, over all rounds."""
    tokens: float
    """Generated per training prompt, over all rounds: feedback, and what was set aside, included."""
    draft_tokens: float
    """Mean length of the completions drawn under the prompt itself."""
    gold: Interval
    """Of the trained policy, as its run reports it."""
    kl: Interval
    """To the initial policy, in nats per completion."""
    seconds: float
    """Of all its steps: each counts in the run that made it."""


Outcomes = Mapping[Cell, Outcome]


class Contrast(NamedTuple):
    """A claim that some cells are better than others, which stand in the same places."""

    claim: Claim
    ours: tuple[Cell, ...]
    theirs: tuple[Cell, ...]
    measure: Measure

    @property
    def cells(self) -> tuple[Cell, ...]:
        return (*self.ours, *self.theirs)

    def values(self, outcomes: Outcomes) -> Floats:
        """(P,) gold of ours minus gold of theirs, mean over the places; P the prompts that all cells measured."""
        places = [
            (_golds(outcomes[a], self.measure), _golds(outcomes[b], self.measure))
            for a, b in zip(self.ours, self.theirs, strict=True)
        ]
        prompts = _common([golds for both in places for golds in both])
        return np.array([np.mean([a[p] - b[p] for a, b in places]) for p in prompts], dtype=np.float64)

    def told(self, outcomes: Outcomes) -> Claim:
        """The claim with the tokens that were generated for it, and how far training moved the policies: methods that
        move at different speeds are compared at equal data, and not at equal KL."""
        sides = [[outcomes[cell] for cell in cells] for cells in (self.ours, self.theirs)]
        ours, theirs = (np.mean([outcome.tokens for outcome in side]) for side in sides)
        told = f"{ours:.0f} against {theirs:.0f} tokens generated per prompt"
        if self.measure == "trained":
            ours, theirs = (np.mean([outcome.kl.mean for outcome in side]) for side in sides)
            told += f", KL {ours:.2f} against {theirs:.2f} nats"
        return self.claim._replace(inequality=f"{self.claim.inequality}; {told}")


class Steering(NamedTuple):
    """A claim that gold follows the goal a policy is asked for."""

    claim: Claim
    cells: tuple[Cell, ...]
    """One policy, evaluated at one goal each."""

    def values(self, outcomes: Outcomes) -> Floats:
        """(P,) rank correlation of goal and gold within each prompt."""
        at_goals = [_golds(outcomes[cell], "trained") for cell in self.cells]
        goals = [float(cell.goal) for cell in self.cells]
        return np.array(
            [rank_correlation(goals, [golds[p] for golds in at_goals]) for p in _common(at_goals)], dtype=np.float64
        )

    def told(self, outcomes: Outcomes) -> Claim:
        return self.claim


Reading = Contrast | Steering


def needed(reading: Reading) -> tuple[Cell, ...]:
    """The cells a claim is read off, after the one that tells how many completions plain arms have."""
    plain = any(cell.arm in PLAIN for cell in reading.cells)
    return tuple(dict.fromkeys((*([ANCHOR] if plain else []), *reading.cells)))


def all_needed(readings: Sequence[Reading]) -> tuple[Cell, ...]:
    """Every cell that some claim needs, once, in the order in which they can be run."""
    return tuple(dict.fromkeys(cell for reading in readings for cell in needed(reading)))


def read_off(readings: Sequence[Reading], outcomes: Outcomes) -> list[tuple[Claim, Result]]:
    """Each claim with its result. A cell's seconds are shared by the claims that need it."""
    shares = {cell: sum(cell in needed(r) for r in readings) for cell in outcomes}
    found: list[tuple[Claim, Result]] = []
    for reading in readings:
        claim = reading.told(outcomes)
        seconds = sum(outcomes[cell].seconds / shares[cell] for cell in needed(reading))
        found.append((claim, judge_prompts(claim, reading.values(outcomes), seconds)))
    return found


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Spearman's, equal values sharing the mean of their ranks; 0 where either does not vary."""
    ranks = [_ranks(np.asarray(values, dtype=np.float64)) for values in (xs, ys)]
    if any(np.ptp(of) == 0 for of in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Floats) -> Floats:
    below = (values[:, None] > values[None, :]).sum(axis=1)
    return below + (values[:, None] == values[None, :]).sum(axis=1) / 2


def _golds(outcome: Outcome, measure: Measure) -> Mapping[str, float]:
    return outcome.best if measure == "best" else outcome.trained


def _common(golds: Sequence[Mapping[str, float]]) -> list[str]:
    return sorted(set[str].intersection(*(set(of) for of in golds)))
