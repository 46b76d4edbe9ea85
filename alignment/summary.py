"""What a run achieved, as ``ratchet show --json`` prints it."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import JsonValue, NonNegativeInt, model_validator

from alignment.types import Record, Step

Metrics = Mapping[str, float | None]
"""Named numbers of one policy on the held-out prompts; None is "not measured", never zero.

``x_mean`` (or a bare ``x``) has its 95% interval in ``x_low`` and ``x_high`` where one was computed.
"""


class Interval(Record):
    """An estimate with its 95% interval; the ends are None where none was computed."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def negated(self) -> "Interval":
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Interval(mean=-self.mean, low=low, high=high)


def interval_of(metrics: Metrics, name: str) -> Interval | None:
    """The metric ``name`` with its interval; None when it was not measured."""
    mean, stem = metrics.get(name), name.removesuffix("_mean")
    if mean is None:
        return None
    return Interval(mean=mean, low=metrics.get(f"{stem}_low"), high=metrics.get(f"{stem}_high"))


class PolicyName(Record):
    """Where a policy lies and what it is."""

    uri: str
    digest: str


class InitialSummary(Record):
    """The policy the run began with; empty until it has been adopted and evaluated."""

    policy: PolicyName | None = None
    metrics: Mapping[str, float | None] = {}


class RoundSummary(Record):
    """One finished round."""

    round: NonNegativeInt
    verdict: Literal["promoted", "rejected"]
    reasons: tuple[str, ...]
    policy: PolicyName
    steps: Mapping[str, Step]
    """In the order they ran."""
    metrics: Metrics
    """Of the policy this round trained."""


class RunSummary(Record):
    """A run as far as it has come. ``model_dump(mode="json")`` is what ``ratchet show RUN --json`` prints."""

    run: str
    store: str
    config: Mapping[str, JsonValue]
    """The resolved ``RunConfig``."""
    initial: InitialSummary = InitialSummary()
    rounds: tuple[RoundSummary, ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        numbers = [r.round for r in self.rounds]
        if numbers != sorted(set(numbers)):
            raise ValueError(f"run {self.run!r}: rounds {numbers} are not in order, each once")
        return self

    @property
    def rounds_asked(self) -> int | None:
        """How many rounds the configuration asks for; None when it does not say."""
        asked = self.config.get("rounds")
        return asked if isinstance(asked, int) else None

    @property
    def promoted(self) -> tuple[RoundSummary, ...]:
        """The promoted rounds, in order."""
        return tuple(r for r in self.rounds if r.verdict == "promoted")

    @property
    def policy(self) -> PolicyName | None:
        """The policy to use now: the last promoted one, or the initial one."""
        return self.promoted[-1].policy if self.promoted else self.initial.policy


def metrics_before(summary: RunSummary, round: int) -> Metrics:
    """Metrics of the policy that round ``round`` had to beat: the last one promoted before it, or the initial one."""
    earlier = [r.metrics for r in summary.promoted if r.round < round]
    return earlier[-1] if earlier else summary.initial.metrics


class Change(Record):
    """A metric of the initial policy and of the one promoted last."""

    before: Interval
    after: Interval
    round: NonNegativeInt
    """The round that trained the latter."""
    gain: Interval | None = None
    """Mean difference prompt by prompt, where it was measured."""

    @property
    def sure_gain(self) -> Interval | None:
        """The gain, where its interval does not hold 0."""
        gain = self.gain
        if gain is None or gain.low is None or gain.high is None or gain.low <= 0 <= gain.high:
            return None
        return gain

    @property
    def direction(self) -> Literal["rose", "fell", "overlaps", "no_interval"]:
        """Which way it went, as far as two 95% intervals can tell.

        "rose" and "fell" need disjoint intervals. Overlapping ones decide nothing: two means can differ while their
        intervals overlap. Ends that touch overlap.
        """
        before, after = self.before, self.after
        if before.low is None or before.high is None or after.low is None or after.high is None:
            return "no_interval"
        if after.low > before.high:
            return "rose"
        return "fell" if after.high < before.low else "overlaps"


def change_of(summary: RunSummary, name: str) -> Change | None:
    """How metric ``name`` went from the initial to the last promoted policy; None where either end is missing, and for
    the reward where a refit has changed its scale on the way."""
    if not summary.promoted:
        return None
    last = summary.promoted[-1]
    if name == "reward_mean" and any(k <= last.round for k in refitted_rounds(summary)):
        return None
    before, after = interval_of(summary.initial.metrics, name), interval_of(last.metrics, name)
    if before is None or after is None:
        return None
    gain = interval_of(last.metrics, f"{name.removesuffix('_mean')}_gain_initial")
    return Change(before=before, after=after, round=last.round, gain=gain)


def gold_labelled(summary: RunSummary) -> bool:
    """Whether the gold reward decided what was trained on."""
    label = summary.config.get("label")
    return isinstance(label, dict) and label.get("type") == "gold"


def refitted_rounds(summary: RunSummary) -> tuple[int, ...]:
    """Rounds before which the reward model was refitted: from each on, rewards are on another scale."""
    return tuple(r.round for r in summary.rounds if "refit-model" in r.steps)


def over_optimised(summary: RunSummary) -> tuple[int, ...]:
    """Rounds whose reward mean rose while their gold reward fell, against the policy they had to beat.

    A fall counts when the gold intervals are disjoint. Rounds without both rewards and intervals never count.
    """
    found: list[int] = []
    for r in summary.rounds:
        before, gain = metrics_before(summary, r.round), _reward_gain(summary, r)
        high, low_before = r.metrics.get("gold_high"), before.get("gold_low")
        if gain is not None and high is not None and low_before is not None and gain > 0 and high < low_before:
            found.append(r.round)
    return tuple(found)


def _reward_gain(summary: RunSummary, r: RoundSummary) -> float | None:
    """By how much the reward rose: after a refit as one reward model measured both policies, else by their means."""
    if r.round in refitted_rounds(summary):
        return r.metrics.get("reward_gain")
    after, before = r.metrics.get("reward_mean"), metrics_before(summary, r.round).get("reward_mean")
    return None if after is None or before is None else after - before
