"""What lies in a run's folder, told apart by its path, and all objects that it refers to.

``runs/{run}/config.json`` and ``promoted.json`` are the run's; ``{folder}/manifest.json`` and
``{folder}/notes/{step}.json`` a round's; every other ``.json`` is a readable name. Hidden files are locks, and what
killed writers left.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from alignment.errors import UserError
from alignment.types import Kind, RoundManifest
from infra import objects
from infra.listing import Found, listing, read_all
from infra.runs import Pointer, Turns

Role = Literal["config", "promotions", "manifest", "note", "name", "hidden", "stray"]
ROLES: frozenset[Role] = frozenset({"config", "promotions", "manifest", "note", "name"})
"""Of what belongs to a run."""
REFERRING: frozenset[Role] = ROLES - {"note"}
_ADDRESS = re.compile(rf"objects/({'|'.join(get_args(Kind))})/([A-Za-z0-9_-]+)")


class RunFile(NamedTuple):
    """A file of a run, and its content."""

    run: str
    path: str
    """Relative to the run's folder."""
    role: Role
    data: bytes

    @property
    def at(self) -> str:
        """Relative to the store."""
        return f"runs/{self.run}/{self.path}"


class Reference(NamedTuple):
    """A file of a run that refers to an object."""

    file: RunFile
    key: str
    """``kind/recipe``"""
    digest: str | None
    """None where only the address is given."""


def manifest_path(run: str, folder: str) -> str:
    return f"runs/{run}/{folder}/manifest.json"


def note_path(run: str, folder: str, step: str) -> str:
    return f"runs/{run}/{folder}/notes/{step}.json"


def role_of(path: str) -> Role:
    """By the path within the run's folder."""
    *folders, name = path.split("/")
    if name.startswith("."):
        return "hidden"
    if not name.endswith(".json"):
        return "stray"
    if not folders and name in ("config.json", "promoted.json"):
        return "config" if name == "config.json" else "promotions"
    if name == "manifest.json" and len(folders) == 1:
        return "manifest"
    return "note" if folders[-1:] == ["notes"] else "name"


def run_files(store: str, run: str | None = None, roles: Collection[Role] = ROLES) -> list[RunFile]:
    """The files of a run, or of all runs, that have one of these roles, with their content."""
    return read_files(store, [found for found in listed(store, run) if run_role(found.path) in roles])


def listed(store: str, run: str | None = None) -> list[Found]:
    """All files of a run's folder, or of all."""
    return listing(store, f"runs/{run}" if run else "runs")


def runs_in(store: str) -> set[str]:
    """Names of all runs that have left anything, claimed or not."""
    return {found.path.split("/")[1] for found in listed(store) if run_role(found.path) in ROLES}


def run_role(path: str) -> Role:
    """As ``role_of``, by the path within the store."""
    _, _, *within = path.split("/", 2)
    return role_of(within[0]) if within else "stray"


def read_files(store: str, files: Sequence[Found]) -> list[RunFile]:
    """Those that are still there."""
    read: list[RunFile] = []
    for found, data in zip(files, read_all(store, [found.path for found in files]), strict=True):
        if data is not None:
            _, run, path = found.path.split("/", 2)
            read.append(RunFile(run, path, role_of(path), data))
    return read


def references(store: str, file: RunFile) -> Iterator[Reference]:
    """The objects a run's file refers to: a name's, the promoted policies of all rounds, a manifest's, and models that
    a configuration gives by address. UserError when the file cannot be read."""
    match file.role:
        case "name":
            yield _pointed(file, objects.parsed(Pointer, store, file.at, file.data))
        case "promotions":
            for turn in objects.parsed(Turns, store, file.at, file.data).turns:
                yield _pointed(file, turn.to)
        case "manifest":
            manifest = objects.parsed(RoundManifest, store, file.at, file.data)
            for artifact in (manifest.policy, manifest.evaluation):
                yield Reference(file, f"{artifact.kind}/{artifact.recipe}", artifact.digest)
        case "config":
            for kind, recipe in _ADDRESS.findall(file.data.decode(errors="replace")):
                yield Reference(file, f"{kind}/{recipe}", None)
        case _:
            pass


def _pointed(file: RunFile, pointer: Pointer) -> Reference:
    return Reference(file, f"{pointer.kind}/{pointer.recipe}", pointer.digest)


class References:
    """The objects that runs refer to. Looked at again, it reads only what is new."""

    def __init__(self, store: str):
        self.keys: set[str] = set()
        self.runs: set[str] = set()
        self._store = store
        self._seen: set[Found] = set()
        self.look()

    def look(self) -> set[str]:
        """What has come to be referred to since. UserError for a file that cannot be read: who knows what it names."""
        new = [f for f in listed(self._store) if f not in self._seen and run_role(f.path) in REFERRING]
        found: set[str] = set()
        for file in read_files(self._store, new):
            self.runs.add(file.run)
            found |= {reference.key for reference in references(self._store, file)}
        self._seen.update(new)
        fresh = found - self.keys
        self.keys |= fresh
        return fresh


def names_by_object(store: str, files: Sequence[RunFile]) -> dict[str, list[str]]:
    """Which readable names, such as ``RUN/round-001/train``, point to each object. Unreadable ones are left out."""
    names: dict[str, list[str]] = {}
    for file in files:
        if file.role == "name":
            for reference in _readable(store, file):
                names.setdefault(reference.key, []).append(f"{file.run}/{file.path.removesuffix('.json')}")
    return names


def _readable(store: str, file: RunFile) -> list[Reference]:
    try:
        return list(references(store, file))
    except UserError:
        return []
