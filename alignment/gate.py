"""The promotion gate: is the new policy better, and did it stay within its budgets?

Both gates read the metrics of ``alignment.metrics`` and see no gold reward unless ``max_hacking_slope`` is set.
A budget that is set and was not measured is not held: the policy is refused.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from alignment.types import Record, Strategy

Metrics = Mapping[str, float | None]


class Verdict(Record):
    """Whether the new policy is promoted."""

    promoted: bool
    reasons: tuple[str, ...]
    """Every threshold that was missed, each a sentence with both numbers; for a promotion, what cleared it."""


class Budgets(Strategy):
    """What no gain may cost. None sets no bound. The defaults are ours."""

    max_kl: PositiveFloat | None = None
    """Nats per completion from the run's initial policy, as estimated (``kl_initial``)."""
    max_length_ratio: PositiveFloat | None = 2.0
    """Mean completion length over that of the last promoted policy."""
    min_distinct_ratio: PositiveFloat | None = 0.5
    """Distinct bigrams per bigram over that of the last promoted policy."""
    max_truncated_rate: NonNegativeFloat | None = None
    """Share of completions cut at the token limit."""
    max_failure_rate: NonNegativeFloat | None = 0.05
    """Share of completions that have no score."""
    max_hacking_slope: float | None = None
    """Standard deviations per round by which the reward outruns gold. The one bound that lets the gate see gold."""

    def broken(self, metrics: Metrics) -> list[str]:
        """One sentence for each budget that the metrics break, or that they do not measure."""
        upper = {
            "kl_initial": self.max_kl,
            "length_ratio": self.max_length_ratio,
            "truncated_rate": self.max_truncated_rate,
            "failure_rate": self.max_failure_rate,
            "hacking_slope": self.max_hacking_slope,
        }
        above = [_above(name, metrics.get(name), bound) for name, bound in upper.items() if bound is not None]
        return [*filter(None, above), *self._too_uniform(metrics)]

    def _too_uniform(self, metrics: Metrics) -> list[str]:
        bound, value = self.min_distinct_ratio, metrics.get("distinct_ratio")
        if bound is None or (value is not None and value >= bound):
            return []
        if value is None:
            return [_unmeasured("distinct_ratio", bound)]
        return [f"distinct_ratio is {value:.4g}, below its bound of {bound:g}."]


class WinRate(Budgets):
    """Promote when the new policy beats the last promoted one on held-out prompts, beyond doubt of sampling."""

    type: Literal["win_rate"] = "win_rate"
    min_win_rate: float = Field(default=0.5, ge=0, le=1)
    """The lower end of the 95% interval must exceed it."""

    def __call__(self, metrics: Metrics) -> Verdict:
        return _verdict("win_rate", self.min_win_rate, metrics, self.broken(metrics))


class PreferenceAccuracy(Budgets):
    """Promote when the implicit reward orders held-out pairs as their labels do: for runs without a reward model.

    Rafailov et al. 2023, arXiv:2305.18290, section 4, has the implicit reward; the rule is ours.
    """

    type: Literal["preference_accuracy"] = "preference_accuracy"
    min_accuracy: float = Field(default=0.5, ge=0, le=1)
    """The lower end of the 95% interval must exceed it."""

    def __call__(self, metrics: Metrics) -> Verdict:
        return _verdict("pair_accuracy", self.min_accuracy, metrics, self.broken(metrics))


Gate = Annotated[WinRate | PreferenceAccuracy, Field(discriminator="type")]


def _verdict(name: str, bound: float, metrics: Metrics, broken: list[str]) -> Verdict:
    mean, low, high = (metrics.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if low is None:
        return Verdict(promoted=False, reasons=(_unmeasured(f"{name}_low", bound), *broken))
    said = f"{name} is {_shown(mean)}, 95% interval {low:.4g} to {_shown(high)}"
    if not low > bound:  # so that NaN is refused too
        return Verdict(promoted=False, reasons=(f"{said}: its lower end does not exceed {bound:g}.", *broken))
    if broken:
        return Verdict(promoted=False, reasons=tuple(broken))
    return Verdict(promoted=True, reasons=(f"{said}: its lower end exceeds {bound:g}.",))


def _above(name: str, value: float | None, bound: float) -> str | None:
    if value is None:
        return _unmeasured(name, bound)
    return None if value <= bound else f"{name} is {value:.4g}, above its bound of {bound:g}."


def _unmeasured(name: str, bound: float) -> str:
    return f"{name} was not measured, so its bound of {bound:g} cannot be held."


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
