"""Claims as a person reads them: a line each in the terminal, and one HTML file with a plot for each."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from alignment.summary import Interval
from alignment.testbed.claims import Result
from alignment.testbed.outcomes import Outcomes
from tasks.claims import Finding
from tasks.claims_grid import arms_table, grid
from tasks.claims_plot import claim_plot
from tasks.numbers import bounds, duration, number
from tasks.pages import render

METHODS = {
    "rso": "RSO: rejection sampling from the reward-tilted policy",
    "sera": "SeRA: pairs reviewed by implicit rewards",
    "apl": "APL: labels where they teach most",
    "prs": "PRS: refining the best draft",
    "rad": "RAD: pairs conditioned on their scores",
}
STYLES = {"holds": "green", "does not hold": "yellow", "not resolved": "dim"}


def claims_text(findings: Sequence[Finding]) -> RichTable:
    """A table of the claims; long cells wrap."""
    shown = RichTable(box=box.SIMPLE_HEAD, header_style="dim", show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("claim", "inequality", "reported", "ours"):
        shown.add_column(column, overflow="fold")
    shown.add_column("verdict", no_wrap=True)
    shown.add_column("sec", justify="right", no_wrap=True)
    for claim, result in findings:
        cells = (claim.name, claim.inequality, claim.paper, ours(result))
        verdict = Text(result.verdict, style=STYLES[result.verdict])
        shown.add_row(*(Text(cell) for cell in cells), verdict, Text(number(result.seconds, 1)))
    return shown


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """By method, as they were within each."""
    methods = list(METHODS)
    return sorted(findings, key=lambda f: methods.index(f.method))


def ours(result: Result) -> str:
    """Mean and interval, with digits enough to tell the ends apart."""
    if result.ours is None or result.low is None or result.high is None:
        return "not measured"
    digits = 3 if abs(result.high - result.low) < 0.2 else 2
    interval = Interval(mean=result.ours, low=result.low, high=result.high)
    return f"{number(result.ours, digits)} {bounds(interval, digits)}"


def tally(findings: Sequence[Finding]) -> str:
    """How many claims hold, in a sentence."""
    counts = Counter(f.result.verdict for f in findings)
    return (
        f"Of {len(findings)} claims {counts['holds']} hold, {counts['does not hold']} do not hold and "
        f"{counts['not resolved']} are not resolved."
    )


def claims_page(findings: Sequence[Finding], outcomes: Outcomes | None = None) -> str:
    """The page, as HTML; ``outcomes`` are the sandbox's cells, if some were run. The same findings give the same
    bytes. Findings of one method stand together."""
    sections = [
        (METHODS.get(method, method), method, [(f, ours(f.result), _drawn(f, i)) for i, f in enumerate(members)])
        for method, members in groupby(findings, key=lambda f: f.method)
    ]
    return render(
        "claims.html.j2",
        {"number": number},
        sections=sections,
        tally=tally(findings),
        seconds=duration(sum(f.result.seconds for f in findings)),
        on_arrays=not all(f.in_sandbox for f in findings),
        grid=grid(outcomes or {}),
        arms=arms_table(outcomes or {}),
    )


def _drawn(finding: Finding, index: int) -> Markup:
    """Our own SVG; whatever text is in it was escaped when it was written."""
    name = f"{finding.method}-{index}"
    label = f"{finding.claim.name}: {ours(finding.result)}, {finding.result.verdict}"
    return Markup(claim_plot(name, label, finding))
