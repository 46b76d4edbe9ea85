"""The sandbox's claims on the whole stack: every cell they need as an ordinary run, one after the other."""

from collections.abc import Sequence
from pathlib import Path

from alignment.config import RunConfig
from alignment.testbed.cells import ANCHOR, PLAIN, Cell, completions_for, configured
from alignment.testbed.outcomes import Outcome, Outcomes, Reading, all_needed
from flows.align import align
from flows.plan import finished
from tasks import console
from tasks.outcomes import read_outcome
from tasks.recipe import load_config

BASE = Path(__file__).with_name("claims.toml")


def base_config(store: str) -> RunConfig:
    """What all cells have in common, in this store."""
    return load_config(str(BASE), [], shipped=BASE.parent).model_copy(update={"store": store})


def run_cells(readings: Sequence[Reading], base: RunConfig) -> dict[Cell, Outcome]:
    """The outcome of every cell that the claims need. A cell that is finished is read back; engines stay warm from one
    to the next, since all are runs of this process."""
    outcomes: dict[Cell, Outcome] = {}
    cells = all_needed(readings)
    for number, cell in enumerate(cells, start=1):
        console.cell(number, len(cells), cell.run)
        config = configured(base, cell, _plain_n(cell, outcomes))
        if not finished(config):
            align(config)
        outcomes[cell] = read_outcome(config)
    return outcomes


def _plain_n(cell: Cell, outcomes: Outcomes) -> int | None:
    if cell.arm not in PLAIN:
        return None
    return completions_for(outcomes[ANCHOR].tokens, outcomes[ANCHOR].draft_tokens)
