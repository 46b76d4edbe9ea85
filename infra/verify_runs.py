"""Whether a run's files are what they must be: names, promotions, manifests and notes that belong together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import JsonValue, TypeAdapter, ValidationError

from alignment.errors import UserError
from alignment.types import RoundManifest, StepNote
from infra import objects, storage
from infra.objects import ObjectRecord
from infra.recipes import is_key
from infra.run_files import Reference, Role, RunFile, references
from infra.runs import Turns
from infra.verify_objects import Checked, Problem, cause

_SAYS: Mapping[Role, str] = {
    "config": "configuration",
    "promotions": "history of promotions",
    "manifest": "manifest",
    "note": "note",
    "name": "name",
}


class Standing(NamedTuple):
    """Whether an object has a record, and the digest that it tells."""

    there: bool
    digest: str | None
    """None also where the record cannot be read, which is told with the object."""


class Known:
    """Where objects stand: as they were checked, or as they are now where none was there then."""

    def __init__(self, store: str, checked: Mapping[str, Checked]):
        self._store = store
        self._standing = {c.key: Standing(True, c.digest) for c in checked.values() if c.state == "whole"}

    def __call__(self, key: str) -> Standing:
        if key not in self._standing:
            self._standing[key] = self._look(key)
        return self._standing[key]

    def _look(self, key: str) -> Standing:
        path = f"objects/{key}/record.json"
        data = storage.read(self._store, path) if is_key(key) else None
        if data is None:
            return Standing(False, None)
        try:
            return Standing(True, objects.parsed(ObjectRecord, self._store, path, data).digest)
        except UserError:
            return Standing(True, None)


def check_run_file(store: str, file: RunFile, known: Known, names: frozenset[str]) -> Iterator[Problem]:
    """What is wrong with one file of a run, and with what it refers to; ``names`` are paths of names in the store."""
    at = f"{storage.canonical(store)}/{file.at}"
    again = f"remove it and run {file.run!r} again to have it anew"
    try:
        if file.role == "config":
            TypeAdapter(dict[str, JsonValue]).validate_json(file.data)
            return  # a model that it gives by address may be anywhere
        if file.role == "note":
            StepNote.model_validate_json(file.data)
        referred = list(references(store, file))
    except (UserError, ValidationError) as error:
        yield Problem(at=at, expected=f"a readable {_SAYS[file.role]}", found=cause(error), remedy=again)
        return
    for reference in referred:
        yield from _check_reference(at, reference, known(reference.key))
    if (differs := _difference(store, file, names)) is not None:
        expected, found = differs
        yield Problem(at=at, expected=expected, found=found, remedy=again)


def _difference(store: str, file: RunFile, names: frozenset[str]) -> tuple[str, str] | None:
    """What a file that can be read must say and does not, by where it lies."""
    match file.role:
        case "promotions":
            rounds = [turn.round for turn in objects.parsed(Turns, store, file.at, file.data).turns]
            if not rounds or rounds != sorted(set(rounds)):
                return "rounds that only rise", f"rounds {rounds}"
        case "manifest":
            folder, number = file.path.split("/")[0], RoundManifest.model_validate_json(file.data).round
            if folder != ("start" if number < 0 else f"round-{number:03d}"):
                return f"the manifest of {folder}", f"round {number}"
        case "note":
            named = file.at.replace("/notes/", "/")
            if named not in names and storage.size(store, named) is None:  # named since, while the run goes on
                return f"a step named by {named}", "nothing"
        case _:
            pass
    return None


def _check_reference(at: str, reference: Reference, standing: Standing) -> Iterator[Problem]:
    expected, run = f"{reference.key} with digest {reference.digest}", reference.file.run
    if not standing.there:
        yield Problem(at=at, expected=expected, found="nothing", remedy=f"run {run!r} again to make it anew")
    elif standing.digest is not None and standing.digest != reference.digest:
        remedy = f"if the object is right, remove this file and run {run!r} again"
        yield Problem(at=at, expected=expected, found=f"digest {standing.digest}", remedy=remedy)


def check_claims(store: str, files: Sequence[RunFile]) -> Iterator[Problem]:
    """That every run with files has its configuration: without it nobody can read the run."""
    claimed = {file.run for file in files if file.role == "config"}
    for run in sorted({file.run for file in files} - claimed):
        path = f"runs/{run}/config.json"
        if storage.size(store, path) is None:
            at, remedy = f"{storage.canonical(store)}/{path}", f"run {run!r} again with its recipe"
            yield Problem(at=at, expected="the run's configuration", found="nothing", remedy=remedy)
