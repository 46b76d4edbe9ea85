"""One driver at a time, of all that share this machine's cache."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from alignment.errors import UserError

LOOK = 0.2
"""Seconds between two looks at whether the other one is done."""


@contextmanager
def alone(folder: Path, *, timeout: float) -> Iterator[None]:
    """Hold a folder of the cache against drivers that would make the same thing in it; they wait.

    The hold ends with the process, however it ends. UserError when another one has kept it for ``timeout`` seconds, and
    where the cache's file system knows no locks.
    """
    path = folder.with_name(f"{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + timeout
        while not _locked(file, path):
            if time.monotonic() > deadline:
                raise UserError(
                    f"{folder} has been in use by {path.read_text().strip()} for {timeout:g} s, which makes the same; "
                    "stop it, or wait for it and run again"
                )
            time.sleep(LOOK)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _locked(file: TextIO, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise UserError(
            f"{path} cannot be locked ({error}); set RATCHET_CACHE to a folder on a file system with locks"
        ) from error
    return True
