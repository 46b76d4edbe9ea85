"""What the report shows beside the summary: rewards, examples, pairs, dropped rows, costs, curves, probes."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from alignment.summary import RunSummary
from alignment.types import Artifact, Dropped, Prompt, Record


class RewardSpread(Record):
    """Rewards of single completions of the held-out prompts, under the initial policy and under a later one."""

    measure: Literal["reward", "gold"]
    before: tuple[float, ...]
    after: tuple[float, ...]
    round: NonNegativeInt
    """The round that trained the later policy."""


class Answer(Record):
    """One completion as it is shown."""

    text: str
    reward: float | None = None
    gold: float | None = None
    truncated: bool = False
    """Cut by the token limit."""


class RoundAnswer(Answer):
    """A policy's completion of an example prompt."""

    round: int | None
    """The round that trained the policy; None is the initial one."""


class Example(Record):
    """A held-out prompt with one completion of each policy, in the order they were trained."""

    prompt: Prompt
    answers: tuple[RoundAnswer, ...]


class PairExample(Record):
    """A preference pair that a round trained on."""

    round: NonNegativeInt
    prompt: Prompt
    chosen: Answer
    rejected: Answer
    source: str
    p: float = Field(default=1.0, ge=0, le=1)
    """Probability that chosen is better."""
    margin: float | None = None
    condition: str | None = None


class DroppedRows(Record):
    """Rows that did not go on, of one step and for one reason."""

    round: int | None
    """None is before the first round."""
    step: str
    reason: str
    count: PositiveInt
    items: tuple[str, ...] = ()
    """Some of them, with the full reason where it differs."""


def group_dropped(rows: Iterable[Dropped], *, round: int | None, shown: int = 3) -> tuple[DroppedRows, ...]:
    """Counts per step and reason, most frequent first, with up to ``shown`` items each.

    Reasons that differ only in their numbers ("has 301 tokens", "has 288 tokens") are one reason, written with "#".
    """
    groups: dict[tuple[str, str], list[Dropped]] = {}
    for row in rows:
        groups.setdefault((row.step, re.sub(r"\d+(?:[.,]\d+)*", "#", row.reason)), []).append(row)
    grouped: list[DroppedRows] = []
    for (step, pattern), members in groups.items():
        alike = len({m.reason for m in members}) == 1
        grouped.append(
            DroppedRows(
                round=round,
                step=step,
                reason=members[0].reason if alike else pattern,
                count=len(members),
                items=tuple(m.item if alike else f"{m.item}: {m.reason}" for m in members[:shown]),
            )
        )
    return tuple(sorted(grouped, key=lambda g: (-g.count, g.step, g.reason)))


class StepCost(Record):
    """Time and tokens of one step."""

    round: int | None
    """None is before the first round."""
    step: str
    seconds: NonNegativeFloat
    """What making it took, whoever made it."""
    tokens: NonNegativeInt | None = None
    reused: bool
    """Found in the store: this run spent nothing on it."""


def step_costs(summary: RunSummary, tokens: Mapping[tuple[int, str], int]) -> tuple[StepCost, ...]:
    """The costs of all rounds' steps, in the order they ran; ``tokens`` by round and step, where they are known."""
    return tuple(
        StepCost(round=r.round, step=name, seconds=s.seconds, tokens=tokens.get((r.round, name)), reused=s.reused)
        for r in summary.rounds
        for name, s in r.steps.items()
    )


class Curve(Record):
    """One training's progress, one point per optimiser step."""

    round: NonNegativeInt
    loss: tuple[float, ...]
    accuracy: tuple[float, ...] = ()
    """Share of the step's pairs with a positive margin. Empty where it was not recorded."""
    margin: tuple[float, ...] = ()
    """Mean log-ratio of chosen minus that of rejected, in nats. Empty where it was not recorded."""


class ProbeResult(Record):
    """A probe of the engines, with its numbers."""

    round: int | None
    name: str
    passed: bool
    numbers: Mapping[str, float | None] = {}
    note: str = ""


class Event(Record):
    """Something a person should know of: a worker replaced, a shard isolated, a fallback taken."""

    at: datetime | None = None
    round: int | None = None
    text: str


class NamedArtifact(Record):
    """An artifact under the name it has in the run."""

    round: int | None
    name: str
    artifact: Artifact


class ReportData(Record):
    """Everything the report page shows. Whatever is empty is said to be missing, not left out."""

    summary: RunSummary
    spreads: tuple[RewardSpread, ...] = ()
    examples: tuple[Example, ...] = ()
    pairs: tuple[PairExample, ...] = ()
    dropped: tuple[DroppedRows, ...] = ()
    costs: tuple[StepCost, ...] = ()
    curves: tuple[Curve, ...] = ()
    probes: tuple[ProbeResult, ...] = ()
    events: tuple[Event, ...] = ()
    artifacts: tuple[NamedArtifact, ...] = ()
