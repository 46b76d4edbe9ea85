"""A store verified, as a person reads it: what is wrong, one line each, and what was looked at."""

from collections.abc import Iterator

from rich.filesize import decimal

from infra import verify
from infra.verify import Verified
from tasks import console


def verify_store(store: str, run: str | None) -> Verified:
    """Verify all of a store, or a run and what it came from. UserError for no such store or run."""
    found = verify.survey(store, run)
    with console.progress("verify", len(found.contents)) as advance:
        return verify.verify(found, advance)


def verified_lines(found: Verified) -> Iterator[str]:
    """Every problem, then what was looked at."""
    yield from map(str, found.problems)
    of = f"{console.counted(found.objects, 'object')}, {console.counted(found.names, 'name')} in "
    of += f"{console.counted(found.runs, 'run')}, {console.counted(found.files, 'file')} of {decimal(found.bytes)}"
    wrong = len(found.problems)
    yield f"{of}: " + (f"{console.counted(wrong, 'problem')}." if wrong else "all is as it was recorded.")
    if found.unfinished:
        count = console.counted(found.unfinished, "object")
        yield f"{count} unfinished: a run that makes it goes on from the shards that are there."
    if found.litter.files:
        count = console.counted(found.litter.files, "file")
        yield f"{count} of {decimal(found.litter.bytes)} left by killed writers: ratchet gc removes what has grown old."
