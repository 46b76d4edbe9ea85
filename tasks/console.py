"""What a person sees in the terminal while a run goes on."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from alignment.types import RoundManifest

out = Console(stderr=True, highlight=False)
LOG_SECONDS = 30
"""Between two lines of progress in a log."""


def quiet_engines() -> None:
    """Keep orchestrator and engines from writing over the progress bars; RATCHET_DEBUG=1 shows everything.

    Sets environment only, so it must come before prefect and ray are imported.
    """
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")  # 20 is too few on a busy machine
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_HOME", os.path.abspath(".ratchet/prefect"))
        os.makedirs(os.environ["PREFECT_HOME"], exist_ok=True)
    if not os.environ.get("RATCHET_DEBUG"):
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        logging.getLogger("ray").setLevel(logging.ERROR)


def found(folder: str, step: str) -> None:
    out.print(f"[dim]{folder:<10} {step:<22} found[/dim]")


def making(folder: str, step: str) -> None:
    if out.is_terminal:
        out.print(f"{folder:<10} {step:<22} …", end="\r")


def made(folder: str, step: str, seconds: float) -> None:
    out.print(f"{folder:<10} {step:<22} [green]made[/green] in {seconds:.1f} s")


def verdict(folder: str, manifest: RoundManifest) -> None:
    style = "green" if manifest.verdict == "promoted" else "yellow"
    out.print(f"{folder:<10} [{style}]{manifest.verdict}[/{style}]: {' '.join(manifest.reasons)}")


def cell(number: int, total: int, run: str) -> None:
    out.print(f"[bold]{run}[/bold], {number} of {total}", soft_wrap=True)


def counted(count: int, what: str) -> str:
    """Such as "1 object" and "2 objects"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


class Advance(Protocol):
    """Moves a bar: how much is done so far, and a short note such as the loss."""

    def __call__(self, done: int, note: str = "") -> None: ...


@contextmanager
def progress(what: str, total: int | None) -> Iterator["Advance"]:
    """A bar for one long step; where nobody watches a terminal, a line now and then for the log."""
    if not out.is_terminal:
        yield _log_lines(what, total)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=out, transient=True) as bars:
        bar = bars.add_task(what, total=total, note="")

        def advance(done: int, note: str = "") -> None:
            bars.update(bar, completed=done, note=note)

        yield advance


def _log_lines(what: str, total: int | None) -> "Advance":
    told = time.monotonic()

    def advance(done: int, note: str = "") -> None:
        nonlocal told
        if time.monotonic() - told >= LOG_SECONDS:
            told = time.monotonic()
            out.print(f"[dim]{what}: {done}{f' of {total}' if total else ''} {note}[/dim]".rstrip())

    return advance
