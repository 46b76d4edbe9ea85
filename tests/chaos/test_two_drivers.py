"""Two drivers of one run on one store at the same time: both end well, with what one of them would have made alone."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from time import sleep

import pytest
from fake_run import Calls, Whole, assert_the_same, config_of, drive, drive_once, fake_engines
from faults import Effects, Fault

from alignment.errors import Conflict
from alignment.summary import RunSummary
from infra import conditional

DELAYED = 0.3
"""Share of a run's side effects that are late, each time others."""


@contextmanager
def pointers_seen() -> Iterator[list[bytes]]:
    """Content of the pointer after every move of it."""
    seen: list[bytes] = []
    create, swap = conditional.create_local, conditional.swap_local

    def created(path: Path, data: bytes, root: Path) -> bool:
        won = create(path, data, root)
        if won and path.name == "promoted.json":
            seen.append(path.read_bytes())
        return won

    def swapped(path: Path, data: bytes, version: str, root: Path) -> bool:
        won = swap(path, data, version, root)
        if won and path.name == "promoted.json":
            seen.append(path.read_bytes())
        return won

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditional, "create_local", created)
        patch.setattr(conditional, "swap_local", swapped)
        yield seen


def late(seed: int, effects: int) -> dict[int, Fault]:
    draw = random.Random(seed)
    return {number: "delay" for number in range(1, effects) if draw.random() < DELAYED}
