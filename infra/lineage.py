"""What an artifact was made from, and what that was made from, back to where nothing is older."""

import difflib
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from alignment.errors import UserError
from alignment.types import Kind, Record
from infra import objects, storage
from infra.listing import read_all
from infra.objects import ObjectRecord
from infra.recipes import is_key
from infra.run_files import names_by_object, references, run_files
from infra.runs import read_config

_ADDRESS = re.compile(r"(?:(?P<store>.+)/)?objects/(?P<kind>[^/]+)/(?P<recipe>[^/]+)/?")
SHORT = 12
"""Characters of a recipe that people are shown."""

State = Literal["there", "missing", "damaged"]


class Node(Record):
    """An object of a lineage."""

    key: str
    """``kind/recipe``"""
    uri: str
    state: State = "there"
    digest: str | None = None
    """None unless it is there."""
    created: str | None = None
    rows: int | None = None
    parents: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Readable names that point to it, such as ``RUN/round-001/train``."""

    @property
    def kind(self) -> str:
        return self.key.split("/")[0]

    @property
    def short(self) -> str:
        return self.key.split("/")[1][:SHORT]


class Lineage(Record):
    """An artifact and all that it came from, each once; whatever was made from another stands before it."""

    store: str
    artifact: str
    """``kind/recipe``"""
    nodes: tuple[Node, ...]

    @property
    def broken(self) -> tuple[Node, ...]:
        """What is missing, or has a record that cannot be read: nothing is known of what that came from."""
        return tuple(node for node in self.nodes if node.state != "there")


class Address(NamedTuple):
    store: str
    key: str
    """``kind/recipe``"""


def find_address(said: str, store: str, run: str | None = None) -> Address:
    """Where the artifact is that a person means: by its address, by ``kind/recipe`` or the beginning of one in
    ``store``, or by a name of ``run`` such as ``round-001/train``. UserError where that is none, or several."""
    if run is not None:
        return Address(store, _named(store, run, said))
    if address := _ADDRESS.fullmatch(said):
        return Address(
            address["store"] or store, _complete(address["store"] or store, address["kind"], address["recipe"])
        )
    kind, _, recipe = said.partition("/")
    return Address(store, _complete(store, kind, recipe))


def _named(store: str, run: str, path: str) -> str:
    read_config(store, run)
    names = {file.path.removesuffix(".json"): file for file in run_files(store, run, {"name"})}
    if path not in names:
        near = difflib.get_close_matches(path, names, n=3, cutoff=0.3) or sorted(names)[:3]
        raise UserError(f"run {run!r} in store {store} has no step {path!r}; it has {', '.join(near) or 'none yet'}")
    (pointer,) = references(store, names[path])
    return pointer.key


def _complete(store: str, kind: str, recipe: str) -> str:
    """The one object whose recipe begins so."""
    if kind not in get_args(Kind) or not recipe:
        raise UserError(
            f"{kind}/{recipe}: not an artifact; give STORE/objects/KIND/RECIPE, or KIND/RECIPE with --store. "
            f"Kinds are {', '.join(get_args(Kind))}"
        )
    there = storage.folders(store, f"objects/{kind}")
    fitting = [name for name in there if name == recipe] or [name for name in there if name.startswith(recipe)]
    if len(fitting) == 1:
        return f"{kind}/{fitting[0]}"
    if fitting:
        shown = ", ".join(name[: len(recipe) + 6] for name in fitting[:4])
        raise UserError(f"{kind}/{recipe}: {len(fitting)} objects in store {store} begin so ({shown}); give more of it")
    raise UserError(f"store {store} has no object {kind}/{recipe} among its {len(there)} {kind}; see ratchet show")


def trace(at: Address) -> Lineage:
    """Follow an artifact back through its parents. Any of them may be missing, the artifact itself too."""
    records = dict(_records(at.store, at.key))
    names = names_by_object(at.store, run_files(at.store, None, {"name"}))
    store = storage.canonical(at.store)
    nodes = [_node(store, key, records[key], names.get(key, ())) for key in _descending(at, records)]
    return Lineage(store=store, artifact=at.key, nodes=tuple(nodes))


def _records(store: str, key: str) -> Iterator[tuple[str, ObjectRecord | State]]:
    """The records of an object and of all that it came from, read a generation at a time."""
    seen, wave = {key}, [key]
    while wave:
        read = zip(wave, _read(store, wave), strict=True)
        found: list[ObjectRecord | State] = [_parsed(store, key, data) for key, data in read]
        yield from zip(wave, found, strict=True)
        wave = [parent for parent in dict.fromkeys(p for one in found for p in _parents(one)) if parent not in seen]
        seen.update(wave)


def _read(store: str, keys: Sequence[str]) -> list[bytes | None]:
    paths = {key: f"objects/{key}/record.json" for key in keys if is_key(key)}
    found = dict(zip(paths, read_all(store, list(paths.values())), strict=True))
    return [found.get(key) for key in keys]


def _parsed(store: str, key: str, data: bytes | None) -> ObjectRecord | State:
    try:
        return "missing" if data is None else objects.parsed(ObjectRecord, store, key, data)
    except UserError:
        return "damaged"


def _descending(at: Address, records: Mapping[str, ObjectRecord | State]) -> list[str]:
    """Every object before all that it was made from. UserError for records that were damaged into a circle."""
    parents = {key: _parents(record) for key, record in records.items()}
    waiting = dict.fromkeys(parents, 0)
    for of in parents.values():
        for parent in of:
            waiting[parent] += 1
    order, free = [], deque([at.key] if waiting[at.key] == 0 else [])
    while free:
        key = free.popleft()
        order.append(key)
        for parent in parents[key]:
            waiting[parent] -= 1
            if waiting[parent] == 0:
                free.append(parent)
    if left := waiting.keys() - set(order):
        raise UserError(
            f"store {at.store}: the record of {min(left)} names it among its own ancestors; remove it to make it anew"
        )
    return order


def _parents(record: ObjectRecord | State) -> tuple[str, ...]:
    return tuple(dict.fromkeys(record.parents)) if isinstance(record, ObjectRecord) else ()


def _node(store: str, key: str, record: ObjectRecord | State, names: Sequence[str]) -> Node:
    uri, named = f"{store}/objects/{key}", tuple(names)
    if not isinstance(record, ObjectRecord):
        return Node(key=key, uri=uri, state=record, names=named)
    return Node(
        key=key,
        uri=uri,
        digest=record.digest,
        created=record.created,
        rows=record.rows,
        parents=_parents(record),
        names=named,
    )
