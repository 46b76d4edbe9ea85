"""Names that come from outside: of runs, of a model's files, of objects in a store that someone else wrote."""

import re

LONGEST = 200
"""Characters of one name; file systems take 255 bytes, and some are added."""
_PART = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._+=@, -]+\Z")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def is_plain(path: str) -> bool:
    """Whether a relative path means one file below its folder on every system, and looks like what it is: plain ASCII,
    without ``..``, backslashes or control characters."""
    parts = path.split("/")
    return len(path) <= 4 * LONGEST and all(len(part) <= LONGEST and _PART.match(part) for part in parts)


def is_run_name(name: str) -> bool:
    return len(name) <= LONGEST and _RUN.match(name) is not None


def shown(name: str) -> str:
    """A name that may hold anything, in quotes and in one short line."""
    return ascii(name if len(name) <= 80 else f"{name[:60]}...{name[-15:]}")
