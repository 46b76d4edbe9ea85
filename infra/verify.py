"""Whether a store is what it says: every object it holds and every file of its runs, or one run and all that it came
from.

Everything that is wrong is told, not the first of it. What killed writers left is not wrong; it is counted. A store may
be verified while runs go on in it: what is not where it is expected is looked up once more before it is told.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from multiprocessing import get_context
from typing import NamedTuple

from alignment.errors import UserError
from alignment.types import Record
from infra import objects, storage
from infra.listing import Found, listing, read_all
from infra.objects import ObjectRecord
from infra.recipes import is_key
from infra.run_files import ROLES, RunFile, listed, read_files, references, run_role
from infra.runs import read_config
from infra.verify_objects import Checked, Problem, check_object
from infra.verify_runs import Known, check_claims, check_run_file

READERS = 16
"""Threads of a process that ask a server."""
PART, MANY = 32, 200
"""Objects that a process takes at a time, and from how many on it is worth while to start processes."""


class Litter(Record):
    """What killed writers left: files that no record mentions, leftovers of writes, and of probes."""

    files: int
    bytes: int


class Verified(Record):
    """What verifying came to."""

    store: str
    run: str | None
    runs: int
    names: int
    """Readable names that point to objects."""
    objects: int
    unfinished: int
    """Objects of which some shards are there, and no record yet."""
    files: int
    bytes: int
    """Of the data files that records mention, as found."""
    litter: Litter
    problems: tuple[Problem, ...]


class Survey(NamedTuple):
    """What is to be verified."""

    store: str
    run: str | None
    files: Sequence[RunFile]
    contents: Mapping[str, Sequence[Found] | None]
    """Files in the folder of each object, by ``kind/recipe``; None where it is still to be listed."""
    litter: Sequence[Found]


def require_store(store: str) -> None:
    """UserError where there is no store: a mistyped address must not pass for an empty one."""
    if not {"objects", "runs"} & set(storage.folders(store, "")):
        raise UserError(f"store {store} holds neither objects nor runs; check its address")


def survey(store: str, run: str | None = None) -> Survey:
    """Find what there is to verify. UserError for no such store or run."""
    require_store(store)
    if run is not None:
        read_config(store, run)
    there = listed(store, run)  # before the objects: a name is there after its object
    files = read_files(store, [found for found in there if run_role(found.path) in ROLES])
    others = [found for found in there if run_role(found.path) not in ROLES]
    if run is not None:
        return Survey(store, run, files, dict.fromkeys(_came_from(store, files)), others)
    contents: dict[str, list[Found]] = {}
    for found in listing(store, "objects"):
        _, *parts = found.path.split("/")
        if len(parts) > 2:
            contents.setdefault("/".join(parts[:2]), []).append(found)
        else:
            others.append(found)
    return Survey(store, run, files, contents, [*others, *listing(store, "probes")])


def _came_from(store: str, files: Sequence[RunFile]) -> list[str]:
    """Every object that the files refer to, and all that these were made from."""
    found: dict[str, None] = {}
    wave = [key for key in dict.fromkeys(k for file in files for k in _referred(store, file)) if is_key(key)]
    while wave:
        found |= dict.fromkeys(wave)
        records = read_all(store, [f"objects/{key}/record.json" for key in wave])
        parents = [parent for data in records for parent in _parents(store, data)]
        wave = [parent for parent in dict.fromkeys(parents) if parent not in found and is_key(parent)]
    return list(found)


def _referred(store: str, file: RunFile) -> list[str]:
    if file.role == "config":  # a model that is not adopted yet is no part of the run
        return []
    try:
        return [reference.key for reference in references(store, file)]
    except UserError:  # told when the file is checked
        return []


def _parents(store: str, data: bytes | None) -> tuple[str, ...]:
    try:
        return () if data is None else objects.parsed(ObjectRecord, store, "", data).parents
    except UserError:
        return ()


def verify(found: Survey, advance: Callable[[int, str], None] = lambda done, note: None) -> Verified:
    """Look through all of it; ``advance`` hears how many objects are done, and which was the last."""
    checked: dict[str, Checked] = {}
    for one in _all_checked(found):
        checked[one.key] = one
        advance(len(checked), one.key)
    known = Known(found.store, checked)
    problems: list[Problem] = []
    for key in sorted(checked):
        problems += [*checked[key].problems, *_missing_parents(found.store, checked[key], known)]
    names = frozenset(file.at for file in found.files if file.role == "name")
    for file in found.files:
        problems += check_run_file(found.store, file, known, names)
    problems += check_claims(found.store, found.files)
    return _summed(found, list(checked.values()), problems)


def _all_checked(found: Survey) -> Iterator[Checked]:
    """Each object, in any order: many of them by as many processes as there are processors, as digests of rows take
    more time than reading them."""
    items = list(found.contents.items())
    parts = [items[start : start + PART] for start in range(0, len(items), PART)]
    processes = len(os.sched_getaffinity(0))
    if len(items) < MANY or processes == 1 or found.store.startswith("memory:"):
        for part in parts:
            yield from check_objects(found.store, part)
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_leave_interrupts)
    try:
        for future in as_completed([pool.submit(check_objects, found.store, part) for part in parts]):
            yield from future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # an error, or the user, stops it here


def _leave_interrupts() -> None:
    """To the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def check_objects(store: str, items: Sequence[tuple[str, Sequence[Found] | None]]) -> list[Checked]:
    """Some objects, by their ``kind/recipe`` and the files in their folders, which are listed where they are None."""

    def check(item: tuple[str, Sequence[Found] | None]) -> Checked:
        key, there = item
        return check_object(store, key, listing(store, f"objects/{key}") if there is None else there)

    if storage.is_local(store):
        return [check(item) for item in items]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(check, items))


def _missing_parents(store: str, one: Checked, known: Known) -> Iterator[Problem]:
    at = f"{storage.canonical(store)}/objects/{one.key}/record.json"
    for parent in dict.fromkeys(one.parents):
        if not known(parent).there:
            remedy = "it can be used, and what it came from is lost; run again to make that anew"
            yield Problem(at=at, expected=f"parent {parent}", found="nothing", remedy=remedy)


def _summed(found: Survey, checked: Sequence[Checked], problems: Sequence[Problem]) -> Verified:
    stray = [f for f in found.litter if not f.path.endswith(".lock")]  # a swap's lock stays for the next one
    return Verified(
        store=storage.canonical(found.store),
        run=found.run,
        runs=len({file.run for file in found.files}),
        names=sum(file.role == "name" for file in found.files),
        objects=sum(one.state == "whole" for one in checked),
        unfinished=sum(one.state == "unfinished" for one in checked),
        files=sum(one.files for one in checked),
        bytes=sum(one.size for one in checked),
        litter=Litter(
            files=len(stray) + sum(one.litter[0] for one in checked),
            bytes=sum(f.size for f in stray) + sum(one.litter[1] for one in checked),
        ),
        problems=tuple(problems),
    )
