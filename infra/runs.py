"""Runs: readable names at ``{store}/runs/{run}/`` that point to objects, and the one thing that moves, the pointer to
the promoted policy."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue, NonNegativeInt

from alignment.errors import Conflict, UserError
from alignment.types import Artifact, Kind, Record, canonical_json
from infra import objects, storage
from infra.names import LONGEST, is_run_name, shown
from infra.stored_files import Recipe, Sha256


class Pointer(Record):
    """Which object; not where, so that a store can be moved."""

    kind: Kind
    recipe: Recipe
    digest: Sha256


class Turn(Record):
    """One promotion."""

    round: NonNegativeInt
    to: Pointer


class Turns(Record):
    """Content of ``promoted.json``, oldest first; the last one holds."""

    turns: tuple[Turn, ...]


class Promotion(Record):
    """The promoted policy, the round that made it, and the promotions before it, oldest first."""

    artifact: Artifact
    round: NonNegativeInt
    history: tuple[Turn, ...] = ()

    @classmethod
    def after(cls, before: "Promotion | None", artifact: Artifact, round: int) -> "Promotion":
        """What ``promote`` makes of a round's policy."""
        return cls(artifact=artifact, round=round, history=before.turns().turns if before else ())

    def turns(self) -> Turns:
        return Turns(turns=(*self.history, Turn(round=self.round, to=_pointer(self.artifact))))


def claim_run(store: str, run: str, config: Mapping[str, Any]) -> None:
    """Take a run's name for a configuration, for good; taking it again for the same one changes nothing.

    Conflict when the name has another one, naming every field that differs.
    """
    data = json.dumps(json.loads(canonical_json(config)), indent=2, sort_keys=True, ensure_ascii=False).encode()
    if storage.put_once(store, f"{_folder(run)}/config.json", data):
        return
    there, here = _leaves(read_config(store, run)), _leaves(json.loads(data))
    differ = [
        f"{field} is {_shown(there, field)} there and {_shown(here, field)} here"
        for field in sorted(there.keys() | here.keys())
        if _shown(there, field) != _shown(here, field)
    ]
    if differ:
        raise Conflict(
            f"run {run!r} exists in store {store} with another configuration: {'; '.join(differ)}; "
            f"choose a new run name, or branch off with: ratchet fork {run} NEW"
        )


def read_config(store: str, run: str) -> dict[str, JsonValue]:
    """The configuration a run was claimed with. UserError when there is no such run."""
    data = storage.read(store, f"{_folder(run)}/config.json")
    if data is None:
        known = ", ".join(list_runs(store)) or "none"
        raise UserError(f"store {store} has no run {run!r}; it has: {known}")
    try:
        config = json.loads(data)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise UserError(
            f"store {store}: {_folder(run)}/config.json is damaged: it holds no JSON object; remove the run"
        )
    return config


def list_runs(store: str) -> list[str]:
    """Names of all claimed runs, sorted. UserError for a folder that no run could have made."""
    names = storage.folders(store, "runs")
    if odd := [name for name in names if not is_run_name(name)]:
        raise UserError(f"store {store}: runs/ holds {shown(odd[0])}, which is no run's name; rename or remove it")
    return [name for name in names if storage.size(store, f"runs/{name}/config.json") is not None]


def name(store: str, run: str, path: str, artifact: Artifact) -> None:
    """Let a readable path of a run, such as ``round-000/groups``, point to an object, for good.

    Conflict when it points to another one already: then code or inputs changed under the run. UserError when this
    store does not hold the object, or was swept of it in this moment: then there is no such name afterwards.
    """
    pointer, at = _pointer(artifact), _named(run, path)
    _standing(store, pointer)
    if storage.put_once(store, at, objects.record_json(pointer)):
        found = pointer
    else:
        found = objects.parsed(Pointer, store, at, storage.read_bytes(store, at))
    if found != pointer:
        raise Conflict(
            f"{path} of run {run!r} in store {store} is {_told(found)}, and would now be {_told(pointer)}: code or "
            f"inputs changed since; choose a new run name, or branch off with: ratchet fork {run} NEW"
        )
    # a sweep that did not see the name has taken the record away by now, and one that did see it puts it back
    record = objects.await_record(store, pointer.kind, pointer.recipe)
    if record is None or record.digest != pointer.digest:
        storage.remove(store, at)
    _held(store, pointer, record)


def named(store: str, run: str, path: str) -> Artifact | None:
    """What a readable path of a run points to. UserError when the object itself is gone."""
    data = storage.read(store, _named(run, path))
    return None if data is None else _follow(store, objects.parsed(Pointer, store, _named(run, path), data))


def promoted(store: str, run: str) -> Promotion | None:
    """The policy the run promoted last; None before the first."""
    found = _read_turns(store, run)
    return None if found is None else _promotion(store, found[0].turns)


def promote(store: str, run: str, artifact: Artifact, round: int, expected: Promotion | None) -> Promotion:
    """Move the pointer from ``expected`` (None: nothing promoted yet) to a round's policy.

    A move that was made before, be it many rounds ago, is found, so a run that starts again repeats it freely.
    Conflict when the pointer stands elsewhere: another driver moved it.
    """
    if expected is not None and round <= expected.round:
        raise ValueError(f"round {round} cannot follow round {expected.round}: the ratchet only moves forward")
    wanted = Promotion.after(expected, artifact, round)
    _standing(store, _pointer(artifact))
    after, path = wanted.turns(), f"{_folder(run)}/promoted.json"
    data = objects.record_json(after)
    for _ in range(5):
        found = _read_turns(store, run)
        turns = found[0].turns if found else ()
        if turns[: len(after.turns)] == after.turns:
            return wanted
        if turns != wanted.history:
            raise Conflict(
                f"run {run!r} in store {store} promoted {_last(turns)}, expected {_last(wanted.history)} before round "
                f"{round}: another driver moved it; stop one of them and run again"
            )
        if storage.swap(store, path, data, found[1]) if found else storage.put_once(store, path, data):
            return wanted
    raise UserError(f"store {store}: the pointer {path} could not be moved; run again")


def _read_turns(store: str, run: str) -> tuple[Turns, str] | None:
    path = f"{_folder(run)}/promoted.json"
    found = storage.read_version(store, path)
    return None if found is None else (objects.parsed(Turns, store, path, found[0]), found[1])


def _promotion(store: str, turns: tuple[Turn, ...]) -> Promotion:
    return Promotion(artifact=_follow(store, turns[-1].to), round=turns[-1].round, history=turns[:-1])


def _follow(store: str, pointer: Pointer) -> Artifact:
    """What a pointer that is in the store points to."""
    return _held(store, pointer, objects.await_record(store, pointer.kind, pointer.recipe))


def _standing(store: str, pointer: Pointer) -> Artifact:
    """What a pointer that nobody else can see yet points to, so that nobody puts it back either."""
    return _held(store, pointer, objects.read_record(store, pointer.kind, pointer.recipe))


def _held(store: str, pointer: Pointer, record: objects.ObjectRecord | None) -> Artifact:
    if record is None or record.digest != pointer.digest:
        found = "is not there" if record is None else f"has digest {record.digest}"
        raise UserError(f"store {store}: {_told(pointer)} {found}; run again to make it anew")
    return objects.artifact_of(store, record)


def _pointer(artifact: Artifact) -> Pointer:
    return Pointer(kind=artifact.kind, recipe=artifact.recipe, digest=artifact.digest)


def _told(pointer: Pointer) -> str:
    return f"{pointer.kind}/{pointer.recipe[:12]} (digest {pointer.digest[:12]})"


def _last(turns: tuple[Turn, ...]) -> str:
    return f"{_told(turns[-1].to)} in round {turns[-1].round}" if turns else "nothing"


def _folder(run: str) -> str:
    if not is_run_name(run):
        raise UserError(
            f"run name {shown(run)}: use up to {LONGEST} of a-z, A-Z, 0-9, '.', '_' and '-', a letter first"
        )
    return f"runs/{run}"


def _named(run: str, path: str) -> str:
    if path in ("config", "promoted") or not all(is_run_name(part) for part in path.split("/")):
        raise ValueError(f"{path!r} cannot be a name within a run")
    return f"{_folder(run)}/{path}.json"


def _leaves(value: Any, at: str = "") -> dict[str, JsonValue]:
    """Dotted path of every value that is no mapping or list; empty ones count as values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    leaves: dict[str, JsonValue] = {}
    for key, item in items:
        leaves |= _leaves(item, f"{at}.{key}" if at else str(key))
    return leaves if leaves else {at: value}


def _shown(leaves: Mapping[str, JsonValue], field: str) -> str:
    return canonical_json(leaves[field]) if field in leaves else "absent"
