"""Whether a store keeps the promises that commits and promotions stand on, found out by racing it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from uuid import uuid4

from alignment.errors import UserError
from infra import storage

WRITERS, ROUNDS = 8, 3
"""Some stores refuse a second create when asked one at a time, and still have several winners in a race."""


def check_store(store: str) -> None:
    """UserError, within seconds, when the store cannot be reached or written, or when a conditional create or a
    compare-and-swap has several winners. About 100 small requests, of which a sound store keeps nothing."""
    folder = f"probes/{uuid4().hex}"
    for number in range(ROUNDS):
        path = f"{folder}/{number}"
        _race(store, path, "create", partial(storage.create, store, path))
        found = storage.read_version(store, path)
        if found is None:
            raise UserError(f"store {store}: {path} was written and is gone; choose another store")
        _race(store, path, "swap", partial(storage.swap, store, path, version=found[1]))
    storage.remove(store, folder)


def _race(store: str, path: str, what: str, write: Callable[[bytes], bool]) -> None:
    """Let writers go at once. Whoever is told that it won must be the one whose bytes are there, and one must be."""
    start = Barrier(WRITERS)

    def run(nonce: bytes) -> bool:
        start.wait()
        return write(nonce)

    nonces = [uuid4().hex.encode() for _ in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        won = [nonce for nonce, answer in zip(nonces, pool.map(run, nonces), strict=True) if answer]
    stored = storage.read(store, path)
    if stored not in nonces or any(nonce != stored for nonce in won):
        raise UserError(
            f"store {store}: {len(won)} of {WRITERS} racing writers were told that their {what} won, and one must; "
            "use a local path, or an unversioned bucket of a server with conditional writes (If-None-Match, If-Match)"
        )
