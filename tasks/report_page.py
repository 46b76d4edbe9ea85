"""The report: one HTML file that needs nothing else, and says first whether the policy got better."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from alignment.report import ReportData, StepCost
from alignment.summary import RunSummary, change_of
from tasks.figures import Figure, metric_figures, proxy_figures, spread_figures, training_figures
from tasks.headline import headline, remarks
from tasks.numbers import MEASURES, bounds, digits_for, duration, measured, number, phase_name, round_name
from tasks.pages import render
from tasks.tables import Table, dropped_table, metrics_table, probes_table
from tasks.toml_text import toml_text

FILTERS = {"number": number, "duration": duration, "round_name": round_name, "phase_name": phase_name}
OPEN_EXAMPLES = 5
"""Examples that are open at first; the others are one click away."""


def render_report(report: ReportData) -> str:
    """The page, as HTML. The same data give the same bytes, and every text of the run is escaped."""
    summary = report.summary
    return render(
        "report.html.j2",
        FILTERS | {"drawn": _drawn},
        report=report,
        summary=summary,
        headline=headline(summary),
        remarks=remarks(summary),
        change=_big_change(summary),
        strip=_strip(summary),
        facts=_facts(summary),
        metrics=metric_figures(summary),
        spreads=spread_figures(report),
        proxies=proxy_figures(summary),
        training=training_figures(report),
        tables=_tables(report),
        totals=(totals := step_totals(report.costs)),
        longest_total=max((t.seconds + t.saved for t in totals), default=0.0),
        longest=max((c.seconds for c in report.costs), default=0.0),
        config=toml_text(summary.config),
        promoted_rounds={r.round for r in summary.promoted},
        open_examples=OPEN_EXAMPLES,
    )


def _drawn(figure: Figure) -> Markup:
    """Our own SVG; whatever text is in it was escaped when it was written."""
    return Markup(figure.svg)


class BigChange(NamedTuple):
    """The headline's numbers, large."""

    name: str
    round: int
    before: str
    before_ends: str
    after: str
    after_ends: str
    direction: str


def _big_change(summary: RunSummary) -> BigChange | None:
    for measure in MEASURES[:2]:
        if change := change_of(summary, measure.name):
            before, after = change.before, change.after
            return BigChange(
                measure.label,
                change.round,
                number(before.mean, digits_for(before)),
                bounds(before, digits_for(before)),
                number(after.mean, digits_for(after)),
                bounds(after, digits_for(after)),
                change.direction,
            )
    return None


class Stop(NamedTuple):
    """A policy on the way from base to the last round."""

    name: str
    verdict: str
    value: str
    reasons: tuple[str, ...]


def _strip(summary: RunSummary) -> tuple[Stop, ...]:
    measure = MEASURES[0] if change_of(summary, "gold_mean") or not change_of(summary, "reward_mean") else MEASURES[1]
    base = Stop("base", "base", measured(summary.initial.metrics, measure), ())
    return (
        base,
        *(Stop(round_name(r.round), r.verdict, measured(r.metrics, measure), r.reasons) for r in summary.rounds),
    )


def _facts(summary: RunSummary) -> tuple[tuple[str, str], ...]:
    """How the run was made, in the words of its configuration."""
    named = "policy prompts pairs sampler select train.loss reward gold gate reference seed"
    facts = [(path.removeprefix("train."), _chosen(summary, path)) for path in named.split()]
    return tuple((name, value) for name, value in facts if value)


def _chosen(summary: RunSummary, path: str) -> str:
    found: object = summary.config
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if isinstance(found, dict):
        found = next((found[key] for key in ("model", "path", "type") if isinstance(found.get(key), str)), None)
    return "" if found is None else str(found)


def _tables(report: ReportData) -> dict[str, Table]:
    return {
        "metrics": metrics_table(report.summary),
        "dropped": dropped_table(report),
        "probes": probes_table(report),
    }


class StepTotal(NamedTuple):
    """One kind of step over all rounds."""

    step: str
    seconds: float
    """Spent by this run."""
    saved: float
    """Not spent, because the step was found in the store."""
    tokens: int | None
    made: int
    reused: int


def step_totals(costs: Sequence[StepCost]) -> tuple[StepTotal, ...]:
    """Costs summed by step, in the order the steps first ran. Tokens count what this run made."""
    by_step: dict[str, list[StepCost]] = {}
    for cost in costs:
        by_step.setdefault(cost.step, []).append(cost)
    return tuple(_total(step, members) for step, members in by_step.items())


def _total(step: str, members: Sequence[StepCost]) -> StepTotal:
    made = [c for c in members if not c.reused]
    known = [0 if c.reused else c.tokens for c in members if c.tokens is not None]
    return StepTotal(
        step=step,
        seconds=sum(c.seconds for c in made),
        saved=sum(c.seconds for c in members if c.reused),
        tokens=sum(known) if known else None,
        made=len(made),
        reused=len(members) - len(made),
    )
