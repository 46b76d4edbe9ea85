"""Folders of this machine that one process at a time may work in, and what an earlier attempt left there.

A driver that was killed lets go of the folder at once, but workers it had may write for seconds more, so every attempt
has a folder of its own and takes over only what is whole.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from alignment.errors import UserError
from infra.train_checkpoint import newest
from infra.train_data import METRICS, metrics_before

LOOK = 0.2
"""Seconds between two tries."""


@contextmanager
def alone(folder: Path, *, timeout: float, what: str) -> Iterator[None]:
    """Work in a folder while no other process does: others wait here. However this process ends, the folder is free.

    UserError when it is not within ``timeout`` seconds.
    """
    path, end = folder.with_name(f"{folder.name}.lock"), time.monotonic() + timeout
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT)
        if _taken(lock, path):
            break
        os.close(lock)
        if time.monotonic() > end:
            raise UserError(
                f"{what}: another process of this machine has worked on it for {timeout:g} s ({path} is locked); wait "
                "for it, or end it"
            )
        time.sleep(LOOK)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _taken(lock: int, path: Path) -> bool:
    """Whether the lock is ours, and still what the path leads to: whoever had it before removed it at the end."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def new_attempt(scratch: Path) -> Path:
    """A fresh folder in ``scratch`` for a training job, with the newest checkpoint of the attempts before it."""
    attempt = scratch / f"job-{uuid4().hex}"
    attempt.mkdir(parents=True)
    before = [folder for folder in scratch.glob("job-*") if folder != attempt]
    found = [(checkpoint, folder) for folder in before if (checkpoint := newest(folder)) is not None]
    if found:
        checkpoint, folder = max(found, key=lambda one: one[0].step)
        (attempt / METRICS).write_text(metrics_before(folder, checkpoint.step))
        checkpoint.folder.rename(attempt / checkpoint.folder.name)
    for folder in before:
        shutil.rmtree(folder, ignore_errors=True)
    return attempt
