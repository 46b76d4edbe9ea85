"""Removing what nobody needs any more, while runs may be going on in the same store.

What is promised, and why it holds:

- Nothing goes that a name, a promotion, a manifest or a configuration refers to, nor what that was made from, at any
  distance; nor anything young, nor what something young was made from. The age protects work that is under way: a step
  names its inputs before it uses them, but what it makes is committed first and named afterwards, and shards are
  committed long before the whole.
- What readers believe goes before what it speaks of: an object's record, then its shards' records, then data. Killed at
  any point, a sweep leaves litter and never half an object.
- An object that a run finds in the same moment is either kept whole, or that run is told that it is gone. Both sides
  act first and look afterwards, so at least one of them sees the other: a sweep takes the records away, then looks
  for new references and new records, and puts back what has one; a run writes its name, then looks for the record
  (``runs.name``), and a run that declares an object whole from shards it found looks for their records after it has
  written its own (``rows.commit_shards``). Who reads in between waits for what is put back
  (``objects.await_record``). Only what was listed before is removed, and of that only what those records spoke of or
  what is old itself: what another writer puts into the folder stays.
- Objects go before those they were made from, so that one that is put back has lost nothing.
- One sweep is at work at a time: of two, one would remove the data of what the other puts back.

A store knows only its own runs: a configuration elsewhere that gives a model of this store by its address protects
nothing here.
"""

import math
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import PurePosixPath

from alignment.errors import UserError
from infra import storage
from infra.listing import Found, read_all, remove_all, remove_empty
from infra.object_folders import closure, mentioned
from infra.sweep_plan import Doomed, Plan
from infra.uploads import abort

BATCH = 500
"""Objects whose records are taken away before references are looked at again."""

AT_WORK = "sweeping.json"
"""In a store that is swept: by which machine, and since when."""


def sweep(plan: Plan, advance: Callable[[int], None] = lambda done: None) -> list[Doomed]:
    """Remove what the plan says, but for what has come to be needed since; return what went.

    UserError where another sweep of the store is at work, or was killed.
    """
    with _alone(plan.store):
        return _sweep(plan, advance)


@contextmanager
def _alone(store: str) -> Iterator[None]:
    who = f"{socket.gethostname()} since {datetime.now(UTC).isoformat(timespec='microseconds')}"
    if not storage.put_once(store, AT_WORK, who.encode()):
        other = (storage.read(store, AT_WORK) or b"one that has just ended").decode(errors="replace")
        raise UserError(
            f"store {store}: another sweep is at work ({other}); run again when it has ended, or remove {AT_WORK} from "
            "the store if it was killed"
        )
    try:
        yield
    finally:
        storage.remove(store, AT_WORK)


def _sweep(plan: Plan, advance: Callable[[int], None]) -> list[Doomed]:
    gone: list[Doomed] = []
    objects = iter([doomed for doomed in plan.doomed if doomed.is_object])
    while batch := list(islice(objects, BATCH)):
        gone += _sweep_objects(plan, batch)
        advance(len(gone))
    for doomed in plan.doomed:
        if not doomed.is_object and _removed(plan, doomed):
            gone.append(doomed)
            advance(len(gone))
    return gone


def _sweep_objects(plan: Plan, batch: Sequence[Doomed]) -> list[Doomed]:
    """A batch in three steps: look once more, take the records away, and remove the data of what nobody held on to."""
    batch = _without(batch, _needed(plan))
    paths = [found.path for doomed in batch for found in _records(doomed)]
    taken = {path: data for path, data in zip(paths, read_all(plan.store, paths), strict=True) if data is not None}
    remove_all(plan.store, paths)
    going = _without(batch, _needed(plan) | closure(_whole_again(plan, batch), plan.parents))
    for path in {found.path for doomed in batch if doomed not in going for found in _records(doomed)} & taken.keys():
        storage.put_once(plan.store, path, taken[path])
    data = [found.path for doomed in going for found in doomed.files if found.path not in paths]
    remove_all(plan.store, data)
    remove_empty(plan.store, {folder for path in [*data, *paths] for folder in _own_folders(path)})
    return going


def _needed(plan: Plan) -> set[str]:
    """Everything that runs refer to now, and what it came from. UserError where nobody was to be at work, and is."""
    plan.references.look()
    if plan.before == math.inf and plan.references.runs:
        run = min(plan.references.runs)
        raise UserError(f"store {plan.store}: run {run!r} was claimed meanwhile, so the sweep stops; give it an age")
    return closure(plan.references.keys, plan.parents)


def _whole_again(plan: Plan, batch: Sequence[Doomed]) -> list[str]:
    """Objects that another writer has declared whole since their records were taken away."""
    keys = [doomed.folder.key for doomed in batch if doomed.folder]
    found = read_all(plan.store, [f"objects/{key}/record.json" for key in keys])
    return [key for key, data in zip(keys, found, strict=True) if data is not None]


def _without(batch: Sequence[Doomed], keys: Collection[str]) -> list[Doomed]:
    return [doomed for doomed in batch if doomed.folder and doomed.folder.key not in keys]


def _records(doomed: Doomed) -> Sequence[Found]:
    return doomed.folder.records if doomed.folder else ()


def _own_folders(path: str) -> list[str]:
    """The folders of ``objects/{kind}/{recipe}/…`` that are that object's alone."""
    parts = PurePosixPath(path).parts[:-1]
    return ["/".join(parts[:depth]) for depth in range(3, len(parts) + 1)]


def _removed(plan: Plan, doomed: Doomed) -> bool:
    """Litter goes unless a record has come to speak of it."""
    paths = [found.path for found in doomed.files]
    if doomed.upload is not None:
        abort(plan.store, doomed.upload)
    elif doomed.folder is not None:
        spoken = mentioned(plan.store, doomed.folder)
        if spoken is None or not spoken.isdisjoint(paths):
            return False
    remove_all(plan.store, paths)
    remove_empty(plan.store, {folder for path in paths for folder in _own_folders(path)})
    return True
