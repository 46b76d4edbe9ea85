"""A run, and the runs of a store, as a person reads them in a terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from alignment.summary import RunSummary
from tasks.headline import headline, remarks
from tasks.history import FailedProbe
from tasks.numbers import round_name
from tasks.tables import Table, rounds_table, runs_table

STYLES = {"promoted": "green", "rejected": "yellow"}


def show_text(summary: RunSummary, failed: Sequence[FailedProbe] = ()) -> RenderableType:
    """A run: headline, one line per round, the gate's reasons, probes that failed, and where the policy lies."""
    title = Text.assemble(("run ", "dim"), (summary.run, "bold"), ("  in ", "dim"), summary.store)
    said = Text("\n".join((headline(summary), *remarks(summary))))
    parts: list[RenderableType] = [title, said]
    if summary.rounds or summary.initial.metrics:
        parts += ["", rich_table(rounds_table(summary)), ""]
    parts += [_reasons(r.round, r.verdict, r.reasons) for r in summary.rounds if r.reasons]
    parts += [_failure(probe) for probe in failed]
    if summary.policy:
        parts.append(Text.assemble(("policy ", "dim"), summary.policy.uri, overflow="fold"))
    return Group(*parts)


def _reasons(round: int, verdict: str, reasons: Sequence[str]) -> Text:
    return Text.assemble((round_name(round), "bold"), " ", (verdict, STYLES[verdict]), f": {'; '.join(reasons)}")


def _failure(failed: FailedProbe) -> Text:
    """What has been mended is told in one word more, and dimmed."""
    named, style = f"{failed.folder} {failed.step}", "dim" if failed.mended else ""
    mended = " and was made later" if failed.mended else ""
    said = f" failed a probe{mended}: {failed.evidence.said}. What was compared: {failed.path}"
    return Text.assemble((named, "bold"), said, style=style)


def runs_text(runs: Sequence[RunSummary], store: str) -> RenderableType:
    """The runs of a store, one line each."""
    if not runs:
        return Text(f"No run in {store} yet.")
    return rich_table(runs_table(runs))


def rich_table(table: Table) -> RichTable:
    """A table for the terminal. Cells are plain text: brackets in them are not markup."""
    shown = RichTable(box=box.SIMPLE_HEAD, header_style="dim", show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, column in enumerate(table.columns):
        wraps = any(row[i].ends for row in table.rows)  # a narrow terminal breaks between a number and its interval
        shown.add_column(Text(column), justify="right" if i in table.numeric else "left", no_wrap=not wraps)
    for row in table.rows:
        shown.add_row(*(Text(str(cell), style=STYLES.get(cell.text, "")) for cell in row))
    return shown
