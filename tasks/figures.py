"""Which plots a run's report has. One that the run has no numbers for is named as missing, with the reason."""

from collections.abc import Sequence
from typing import NamedTuple

from alignment.report import ReportData
from alignment.summary import Metrics, RunSummary, interval_of
from tasks.numbers import MEASURES, bounds, measured, number, round_name
from tasks.plots import Point, Segment, plane_plot, rounds_plot, spread_plot, training_plot

PLOTTED = MEASURES[:6]

PLANES = (
    ("reward_mean", "reward", "Gold against reward", "Right and up is progress, right and down over-optimisation."),
    ("kl_initial", "KL to the initial policy, nats", "Gold against KL", "What the distance from the base bought."),
)
"""What gold reward is plotted against: metric, axis, title, how to read it."""


class Figure(NamedTuple):
    title: str
    meaning: str
    svg: str
    """Empty where there is nothing to plot; ``meaning`` then says why."""


def metric_figures(summary: RunSummary) -> tuple[Figure, ...]:
    """A plot per metric over the rounds."""
    if not summary.rounds:
        return ()
    policies = _policies(summary)
    figures: list[Figure] = []
    for measure in PLOTTED:
        points = [Point(k, ok, y) for k, ok, m in policies if (y := interval_of(m, measure.name))]
        if not points:
            figures.append(Figure(measure.label, "not measured in this run.", ""))
            continue
        said = ", ".join(f"{round_name(k)} {measured(m, measure)}" for k, _, m in policies)
        svg = rounds_plot(
            f"rounds-{measure.name}",
            f"{measure.label} over the rounds: {said}",
            points,
            digits=measure.digits,
            style=measure.style,
            even=0.5 if measure.name == "win_rate" else None,
        )
        title = f"{measure.label}, {measure.unit}" if measure.unit else measure.label
        figures.append(Figure(title, measure.meaning, svg))
    return tuple(figures)


def _policies(summary: RunSummary) -> list[tuple[int | None, bool, Metrics]]:
    later = [(r.round, r.verdict == "promoted", r.metrics) for r in summary.rounds]
    return [(None, True, summary.initial.metrics), *later]


def spread_figures(report: ReportData) -> tuple[Figure, ...]:
    """The rewards of single completions, before and after."""
    figures: list[Figure] = []
    for spread in report.spreads:
        title = "Reward" if spread.measure == "reward" else "Gold reward"
        if not spread.before or not spread.after:
            figures.append(Figure(title, "no completion has this reward on both sides.", ""))
            continue
        means = [sum(v) / len(v) for v in (spread.before, spread.after)]
        later = round_name(spread.round)
        said = f"mean {number(means[0])} of {len(spread.before)} completions of base, "
        said += f"{number(means[1])} of {len(spread.after)} of {later}"
        svg = spread_plot(f"spread-{spread.measure}", f"{title} of single completions: {said}", spread)
        figures.append(Figure(title, f"{said[0].upper()}{said[1:]}.", svg))
    return tuple(figures)


def proxy_figures(summary: RunSummary) -> tuple[Figure, ...]:
    """Gold reward against what training can see (reward) and against what it costs (KL)."""
    figures: list[Figure] = []
    for name, xlabel, title, meaning in PLANES:
        points = [
            Point(k, ok, y, x)
            for k, ok, m in _policies(summary)
            if (y := interval_of(m, "gold_mean")) and (x := interval_of(m, name))
        ]
        if len(points) < 2:
            figures.append(Figure(title, "needs both numbers for at least two policies.", ""))
            continue
        said = ", ".join(f"{round_name(p.round)} gold {_with_ends(p)} at {number(p.x.mean)}" for p in points if p.x)
        svg = plane_plot(f"plane-{name}", f"{title}: {said}", points, xlabel=xlabel, ylabel="gold reward")
        figures.append(Figure(title, meaning, svg))
    return tuple(figures)


def _with_ends(point: Point) -> str:
    return f"{number(point.y.mean)} {bounds(point.y)}".rstrip()


def training_figures(report: ReportData) -> tuple[Figure, ...]:
    """Loss, accuracy and margin at every optimiser step."""
    curves = report.curves
    if not curves:
        return ()
    accepted = {r.round for r in report.summary.promoted}

    def segments(values: Sequence[tuple[float, ...]]) -> list[Segment]:
        return [Segment(c.round, c.round in accepted, v) for c, v in zip(curves, values, strict=True) if v]

    shown = (
        ("loss", "Loss", "Mean over the step's pairs.", segments([c.loss for c in curves])),
        ("accuracy", "Accuracy", "Share of pairs with a positive margin.", segments([c.accuracy for c in curves])),
        ("margin", "Margin, nats", "Log-ratio of chosen minus that of rejected.", segments([c.margin for c in curves])),
    )
    return tuple(_training_figure(*row) for row in shown)


def _training_figure(name: str, title: str, meaning: str, segments: list[Segment]) -> Figure:
    if not segments:
        return Figure(title, "not recorded in this run.", "")
    said = ", ".join(
        f"{round_name(s.round)} from {number(s.values[0], 3)} to {number(s.values[-1], 3)} in {len(s.values)} steps"
        for s in segments
    )
    style = "share" if name == "accuracy" else "plain"
    svg = training_plot(f"training-{name}", f"{title} in training: {said}", segments, style=style)
    return Figure(title, meaning, svg)
