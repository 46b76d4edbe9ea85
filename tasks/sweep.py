"""A store swept of what nobody needs any more, as a person asks for it and reads it."""

import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.filesize import decimal

from alignment.errors import UserError
from alignment.types import Record
from infra import storage
from infra.run_files import runs_in
from infra.sweep import sweep
from infra.sweep_plan import Doomed, What, planned
from infra.verify import require_store
from tasks import console

HOUR = 3600.0
NAMES: dict[What, str] = {
    "object": "object",
    "unfinished": "unfinished object",
    "litter": "leftover",
    "upload": "aborted upload",
}
SECONDS = {"m": 60.0, "h": HOUR, "d": 24 * HOUR, "w": 7 * 24 * HOUR}


class Gone(Record):
    """Something that was removed, or would be."""

    what: What
    at: str
    """Its address."""
    bytes: int
    modified: str
    """When it was committed, or last written to, as ISO 8601 in UTC."""


class Swept(Record):
    """What a sweep came to."""

    store: str
    dry_run: bool
    gone: tuple[Gone, ...]
    kept: int
    """Objects that stay."""

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.gone)


def parse_age(text: str) -> float:
    """Seconds, of ``7d``, ``12h``, ``90m``, ``2w`` or ``0``. UserError for what is none, and for less than an hour."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)
    if text != "0" and not found:
        raise UserError(f"--older-than {text}: not an age; write 7d, 12h, 90m, 2w or 0")
    age = float(found[1]) * SECONDS[found[2]] if found else 0.0
    if found and age < HOUR:
        raise UserError(f"--older-than {text}: an age below 1h would take what a run is writing now; give 1h or more")
    return age


def sweep_store(store: str, age: float, *, dry_run: bool, now: float | None = None) -> Swept:
    """Remove what no run refers to and is older than ``age`` seconds at ``now``; only tell it on a dry run.

    Age 0 is for a store that no run was claimed in: a run claims its name before it writes anything else, so nobody is
    at work there. UserError otherwise: no age tells a fresh object from one that is not named yet.
    """
    require_store(store)
    if age == 0 and (runs := sorted(runs_in(store))):
        raise UserError(
            f"--older-than 0: store {store} has {console.counted(len(runs), 'run')}, such as {runs[0]}, which may be "
            "at work; give 1h or more, or remove the runs first"
        )
    plan = planned(store, math.inf if age == 0 else (time.time() if now is None else now) - age)
    if dry_run:
        gone = list(plan.doomed)
    else:
        with console.progress("gc", len(plan.doomed)) as advance:
            gone = sweep(plan, advance)
    told = tuple(_told(storage.canonical(store), one) for one in gone)
    return Swept(store=storage.canonical(store), dry_run=dry_run, gone=told, kept=plan.kept)


def _told(store: str, one: Doomed) -> Gone:
    modified = datetime.fromtimestamp(one.modified, UTC).isoformat(timespec="seconds")
    return Gone(what=one.what, at=f"{store}/{one.at}", bytes=one.size, modified=modified)


def swept_lines(swept: Swept) -> Iterator[str]:
    """What went, or would go, one line each; then the sum."""
    for one in swept.gone:
        yield f"{one.what:<10} {decimal(one.bytes):>10}  {one.modified[:10]}  {one.at}"
    counts = Counter(one.what for one in swept.gone)
    parts = [console.counted(counts[what], name) for what, name in NAMES.items() if counts[what]]
    done = "would go" if swept.dry_run else "went"
    yield f"{', '.join(parts) or 'Nothing'} {done}{f', {decimal(swept.bytes)}' if parts else ''}; " + (
        f"{console.counted(swept.kept, 'object')} {'stays' if swept.kept == 1 else 'stay'}."
    )
