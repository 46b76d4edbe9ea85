"""Which code made an object: a record says it, and no digest depends on it."""

import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def code_version() -> str:
    """The installed version, with the commit where the code runs from a checkout."""
    try:
        version = metadata.version("ratchet-align")
    except metadata.PackageNotFoundError:
        version = "not installed"
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return version
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(describe, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version} at {commit}"
