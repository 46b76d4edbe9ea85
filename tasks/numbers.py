"""How numbers are written for people. A missing number is a dash, never a zero."""

import math
from typing import Literal, NamedTuple

from alignment.summary import Interval, Metrics, interval_of

MISSING, MINUS = "\u2013", "\u2212"

Style = Literal["plain", "share", "count"]


class Measure(NamedTuple):
    """A metric as people read it."""

    name: str
    """Its key among the metrics."""
    label: str
    unit: str
    style: Style
    digits: int
    meaning: str


MEASURES = (
    Measure("gold_mean", "Gold reward", "", "plain", 2, "What answers are worth by the gold reward."),
    Measure("reward_mean", "Reward", "", "plain", 2, "The reward the pairs were chosen by."),
    Measure("win_rate", "Win rate", "", "share", 1, "Against the policy promoted before it; 50% is even."),
    Measure("kl_initial", "KL to the initial policy", "nats", "plain", 2, "How far the policy has moved."),
    Measure("length_mean", "Length", "tokens", "plain", 1, "Mean length of a completion."),
    Measure("distinct_2", "Distinct-2", "", "plain", 3, "Share of word pairs that are different: diversity."),
    Measure("length_ratio", "Length ratio", "", "plain", 2, "Length against the policy promoted before it."),
    Measure("truncated_rate", "Truncated", "", "share", 1, "Completions cut by the token limit."),
    Measure("ranking_accuracy", "Ranking accuracy", "", "share", 1, "Held-out pairs whose chosen is the likelier one."),
    Measure("reward_ranking_accuracy", "Reward's ranking", "", "share", 1, "Held-out pairs the reward orders rightly."),
    Measure("chosen_drift", "Chosen drift", "nats", "plain", 2, "What chosen completions gained in log-probability."),
    Measure("displaced_rate", "Displaced", "", "share", 1, "Held-out pairs whose chosen became less likely."),
    Measure(
        "implicit_margin_q10", "Margin, lowest tenth", "nats", "plain", 2, "Implicit-reward margin, 10th percentile."
    ),
    Measure("implicit_margin_q50", "Margin, median", "nats", "plain", 2, "Implicit-reward margin, median pair."),
    Measure(
        "implicit_margin_q90", "Margin, highest tenth", "nats", "plain", 2, "Implicit-reward margin, 90th percentile."
    ),
    Measure("gold_gain_initial", "Gold gain", "", "plain", 2, "Over the initial policy, prompt by prompt."),
    Measure("reward_gain_initial", "Reward gain", "", "plain", 2, "Over the initial policy, prompt by prompt."),
    Measure("pairs", "Pairs", "", "count", 0, "Preference pairs trained on."),
    Measure("dropped", "Dropped rows", "", "count", 0, "Prompts and rows that did not go on."),
    Measure("tokens", "Tokens", "", "count", 0, "Tokens sampled, scored and trained on."),
    Measure("engine_seconds", "Engine time", "s", "count", 0, "Seconds engines were held."),
)


def other_measures(metrics: Metrics) -> tuple[Measure, ...]:
    """The metrics that ``MEASURES`` does not name, under their own names, so that none is left out."""
    known = {m.name for m in MEASURES}
    ends = {end for name in metrics for end in _ends(name) if end in metrics}
    return tuple(Measure(n, n, "", "plain", 3, "") for n in sorted(metrics) if n not in known | ends)


def _ends(name: str) -> tuple[str, str]:
    stem = name.removesuffix("_mean")
    return f"{stem}_low", f"{stem}_high"


def number(value: float | None, digits: int = 2, style: Style = "plain") -> str:
    """A number for reading: true minus sign, thousands apart, shares in percent; a dash for None."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else f"{MINUS}∞")
    text = f"{100 * value:,.{digits}f}%" if style == "share" else f"{value:,.{digits}f}"
    if text.startswith("-"):
        text = text[1:] if not any(c in "123456789" for c in text) else f"{MINUS}{text[1:]}"
    return text.replace(",", "\u202f")


def bounds(interval: Interval, digits: int = 2, style: Style = "plain") -> str:
    """``[low, high]``, in the unit of the number before it, or nothing where no interval was computed."""
    if interval.low is None or interval.high is None:
        return ""
    ends = (number(end, digits, style).removesuffix("%") for end in (interval.low, interval.high))
    return f"[{', '.join(ends)}]"


def digits_for(interval: Interval) -> int:
    """Decimals that show an interval's width to two digits, at least two: some rewards differ by thousandths."""
    if interval.low is None or interval.high is None or not 0 < interval.high - interval.low < math.inf:
        return 2
    return max(2, 1 - math.floor(math.log10(interval.high - interval.low)))


def measured(metrics: Metrics, measure: Measure) -> str:
    """A metric with its interval, in one line of text."""
    interval = interval_of(metrics, measure.name)
    if interval is None:
        return MISSING
    digits = measure.digits if measure.style != "plain" else max(measure.digits, digits_for(interval))
    return f"{number(interval.mean, digits, measure.style)} {bounds(interval, digits, measure.style)}".rstrip()


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4 s, 42 s, 3 min 20 s, 1 h 02 min."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def round_name(round: int | None) -> str:
    """How the policy of a round is called; None is the policy the run began with."""
    return "base" if round is None else f"round {round}"


def phase_name(round: int | None) -> str:
    """How the time of a round is called; None is before the first one."""
    return "setup" if round is None else f"round {round}"
