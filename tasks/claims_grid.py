"""The sandbox's cells side by side: trained policies as a heat map, and what each way of sampling gave."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from alignment.summary import Interval
from alignment.testbed.cells import ANCHOR, Cell, Pairs
from alignment.testbed.claims_sandbox import ARMS, UPDATES
from alignment.testbed.outcomes import Outcome, Outcomes
from tasks.numbers import bounds, number
from tasks.tables import Cell as Shown
from tasks.tables import Table

COLUMNS: tuple[tuple[Pairs, int], ...] = (("best_worst", 1), ("rso", 1), ("best_worst", 2), ("sera", 2))
"""Pairs and rounds."""
FAINT, STRONG = 6, 46
"""Percent of the accent colour behind the lowest and the highest gold."""


class Heat(NamedTuple):
    """One trained policy."""

    run: str
    gold: Interval
    text: str
    ends: str
    kl: str
    tokens: str
    mix: int
    """Percent of the accent colour behind it."""


class Row(NamedTuple):
    arm: str
    update: str
    cells: tuple[Heat | None, ...]
    """One for each column; None where it was not run."""


class Grid(NamedTuple):
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def grid(outcomes: Outcomes) -> Grid:
    """The rows and columns of the grid of which something was run."""
    columns = [c for c in COLUMNS if any(Cell(arm, c[0], u, c[1]) in outcomes for arm in ARMS for u in UPDATES)]
    golds = [o.gold.mean for o in outcomes.values()]
    rows = [
        Row(arm, update, tuple(_heat(Cell(arm, pairs, update, rounds), outcomes, golds) for pairs, rounds in columns))
        for arm in ARMS
        for update in UPDATES
    ]
    titles = tuple(f"{pairs}, {rounds} rounds" if rounds > 1 else pairs for pairs, rounds in columns)
    return Grid(titles, tuple(row for row in rows if any(row.cells)))


def _heat(cell: Cell, outcomes: Outcomes, golds: list[float]) -> Heat | None:
    outcome = outcomes.get(cell)
    if outcome is None:
        return None
    low, high = min(golds), max(golds)
    share = (outcome.gold.mean - low) / (high - low) if high > low else 0.5
    return Heat(
        run=cell.run,
        gold=outcome.gold,
        text=number(outcome.gold.mean),
        ends=bounds(outcome.gold),
        kl=number(outcome.kl.mean),
        tokens=number(outcome.tokens, 0),
        mix=round(FAINT + (STRONG - FAINT) * share),
    )


def arms_table(outcomes: Outcomes) -> Table:
    """What was generated in one round by each sampler, and what the best of it by reward and the policy trained on best
    against worst with DPO are worth."""
    columns = ("sampler", "seed", "completions", "tokens", "against prs", "gold of the selected", "gold trained", "KL")
    rows = tuple(_arm(cell, outcome, outcomes.get(ANCHOR)) for cell, outcome in _sampled(outcomes))
    return Table("Samplers at equal tokens, per prompt", columns, rows, frozenset(range(1, len(columns))))


def _sampled(outcomes: Outcomes) -> Iterable[tuple[Cell, Outcome]]:
    return ((cell, o) for cell, o in outcomes.items() if cell == Cell(cell.arm, seed=cell.seed))


def _arm(cell: Cell, outcome: Outcome, prs: Outcome | None) -> tuple[Shown, ...]:
    ratio = outcome.tokens / prs.tokens if prs else None
    selected = float(np.mean(list(outcome.best.values()))) if outcome.best else None
    return (
        Shown(cell.arm),
        Shown(str(cell.seed), cell.seed),
        Shown(number(outcome.completions, 1), outcome.completions),
        Shown(number(outcome.tokens, 0), outcome.tokens),
        Shown(number(ratio, 1, "share"), ratio),
        Shown(number(selected), selected),
        Shown(number(outcome.gold.mean), outcome.gold.mean, bounds(outcome.gold)),
        Shown(number(outcome.kl.mean), outcome.kl.mean),
    )
