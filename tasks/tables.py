"""The tables of a run, made once for the terminal, the report page and the dashboard."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from alignment.report import ReportData
from alignment.summary import Metrics, RunSummary, interval_of
from alignment.types import Step
from tasks.numbers import (
    MEASURES,
    MINUS,
    MISSING,
    Measure,
    bounds,
    duration,
    measured,
    number,
    other_measures,
    phase_name,
    round_name,
)


class Cell(NamedTuple):
    """Text to read, with the exact number behind it where it is one."""

    text: str
    value: float | None = None
    ends: str = ""
    """The number's interval, as text."""
    bad: bool = False
    """Something a person should look at."""

    def __str__(self) -> str:
        return f"{self.text} {self.ends}".rstrip()


class Table(NamedTuple):
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[int] = frozenset()
    """Columns that are aligned to the right."""


def metric_cell(metrics: Metrics, measure: Measure) -> Cell:
    """A metric with its interval; a dash where it was not measured."""
    interval = interval_of(metrics, measure.name)
    if interval is None:
        return Cell(MISSING)
    text = number(interval.mean, measure.digits, measure.style)
    return Cell(text, interval.mean, bounds(interval, measure.digits, measure.style))


def metrics_table(summary: RunSummary) -> Table:
    """Every metric of every policy: a row each, a column per policy."""
    policies = (summary.initial.metrics, *(r.metrics for r in summary.rounds))
    everything = {name: value for metrics in policies for name, value in metrics.items()}
    shown = [m for m in MEASURES if m.name in everything] + list(other_measures(everything))
    columns = ("metric", "base", *(_titled(r.round, r.verdict) for r in summary.rounds))
    rows = tuple(
        (Cell(f"{m.label}, {m.unit}" if m.unit else m.label), *(metric_cell(p, m) for p in policies)) for m in shown
    )
    return Table("Metrics on held-out prompts", columns, rows, frozenset(range(1, len(columns))))


def _titled(round: int, verdict: str) -> str:
    return round_name(round) if verdict == "promoted" else f"{round_name(round)} ({verdict})"


def rounds_table(summary: RunSummary) -> Table:
    """One line per policy, 80 columns wide: intervals for what decides, means for the rest.

    ``sec`` is time this run spent, ``found`` how many of the round's steps were in the store already.
    """
    columns = ("round", "verdict", *BRIEF, "sec", "found")
    base = (Cell("base"), Cell(""), *_brief(summary.initial.metrics), Cell(""), Cell(""))
    rounds = (
        (
            Cell(str(r.round)),
            Cell(r.verdict),
            *_brief(r.metrics),
            Cell(number(seconds_spent(r.steps), 0), seconds_spent(r.steps)),
            Cell(f"{sum(s.reused for s in r.steps.values())}/{len(r.steps)}"),
        )
        for r in summary.rounds
    )
    return Table("Rounds", columns, (base, *rounds), frozenset(range(2, len(columns))))


BRIEF = ("gold", "win rate", "KL", "length")


def _brief(metrics: Metrics) -> tuple[Cell, ...]:
    gold, _, win_rate, kl, length = (metric_cell(metrics, m) for m in MEASURES[:5])
    return gold, win_rate, kl._replace(ends=""), length._replace(ends="")


def seconds_spent(steps: Mapping[str, Step]) -> float:
    """Seconds this run spent on the steps; what was found in the store cost it nothing."""
    return sum(s.seconds for s in steps.values() if not s.reused)


def verdicts_table(summary: RunSummary) -> Table:
    """The gate's verdict on every round, with all its reasons."""
    rows = (
        (Cell(round_name(r.round)), Cell(r.verdict), Cell("; ".join(r.reasons) or "no reason was recorded"))
        for r in summary.rounds
    )
    return Table("Verdicts of the gate", ("round", "verdict", "reasons"), tuple(rows))


def costs_table(report: ReportData) -> Table:
    """Seconds and tokens of every step."""
    rows = (
        (
            Cell(phase_name(c.round)),
            Cell(c.step),
            Cell(duration(c.seconds), c.seconds),
            Cell(number(c.tokens, 0), c.tokens),
            Cell("reused" if c.reused else ""),
        )
        for c in report.costs
    )
    return Table("Time and tokens", ("round", "step", "time", "tokens", ""), tuple(rows), frozenset({2, 3}))


def dropped_table(report: ReportData) -> Table:
    """Rows that did not go on, counted by step and reason."""
    rows = (
        (
            Cell(phase_name(d.round)),
            Cell(d.step),
            Cell(number(d.count, 0), d.count),
            Cell(d.reason),
            Cell("; ".join(d.items)),
        )
        for d in report.dropped
    )
    return Table("Dropped rows", ("round", "step", "rows", "reason", "such as"), tuple(rows), frozenset({2}))


def probes_table(report: ReportData) -> Table:
    """What the probes of the engines measured."""
    rows = (
        (
            Cell(phase_name(p.round)),
            Cell(p.name),
            Cell("passed" if p.passed else "failed", bad=not p.passed),
            Cell(", ".join(f"{name} {_exact(value)}" for name, value in p.numbers.items())),
            Cell(p.note),
        )
        for p in report.probes
    )
    return Table("Probes", ("round", "probe", "result", "numbers", "note"), tuple(rows))


def _exact(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}".replace("-", MINUS)


def runs_table(runs: Sequence[RunSummary]) -> Table:
    """The runs of a store, one line each."""
    gold = MEASURES[0]
    rows = (
        (
            Cell(s.run),
            Cell(f"{len(s.rounds)} of {s.rounds_asked}" if s.rounds_asked is not None else str(len(s.rounds))),
            Cell(str(len(s.promoted)), len(s.promoted)),
            Cell(measured(s.initial.metrics, gold)),
            Cell(measured(s.promoted[-1].metrics, gold) if s.promoted else MISSING),
            Cell(s.policy.digest[:12] if s.policy else MISSING),
        )
        for s in runs
    )
    columns = ("run", "rounds", "promoted", "gold at first", "gold now", "policy")
    return Table("Runs", columns, tuple(rows), frozenset({1, 2, 3, 4}))


def tables_markdown(report: ReportData) -> dict[str, str]:
    """The report's tables in Markdown, under names that Prefect accepts as artifact keys. Empty tables are left out."""
    tables = {
        "rounds": rounds_table(report.summary),
        "metrics": metrics_table(report.summary),
        "verdicts": verdicts_table(report.summary),
        "costs": costs_table(report),
        "dropped": dropped_table(report),
        "probes": probes_table(report),
    }
    return {name: markdown(table) for name, table in tables.items() if table.rows}


def markdown(table: Table) -> str:
    """A GitHub-style table; nothing in a cell can end the cell, the row or start HTML."""
    rule = "|".join("---:" if i in table.numeric else "---" for i in range(len(table.columns)))
    lines = [_line(table.columns), f"|{rule}|", *(_line([str(c) for c in row]) for row in table.rows)]
    return f"### {table.title}\n\n" + "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(c) for c in cells)} |"


_MARKS = str.maketrans({c: f"\\{c}" for c in "\\`*_[]|!#"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def _escaped(text: str) -> str:
    return " ".join(text.split()).translate(_MARKS)
