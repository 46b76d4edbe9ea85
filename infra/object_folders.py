"""The folders of objects as they lie in a store, with what their records mention and came from."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from alignment.errors import UserError
from infra import objects
from infra.listing import Found, listing, read_all
from infra.objects import ObjectRecord
from infra.recipes import is_key
from infra.stored_files import StoredFile

Parents = Mapping[str, tuple[str, ...]]
"""What each object was made from, by ``kind/recipe``."""


class _Mentions(BaseModel):
    """What any record in an object's folder says of files: the object's own, a shard's."""

    file: StoredFile | None = None
    files: tuple[StoredFile, ...] = ()


class Folder(NamedTuple):
    """An object's folder: what is there, and what its record says."""

    key: str
    """``kind/recipe``"""
    files: tuple[Found, ...]
    record: ObjectRecord | None
    damaged: bool
    """There is a record, and it cannot be read."""

    @property
    def records(self) -> list[Found]:
        """What readers believe: ``record.json`` first, then those of parts."""
        top = [f for f in self.files if f.path.count("/") == 3 and f.path.endswith(".json") and "/." not in f.path]
        return sorted(top, key=lambda found: not found.path.endswith("/record.json"))

    @property
    def modified(self) -> float:
        """When it was committed; without a record that can be read, when something was last written there."""
        if self.record is not None and (created := _instant(self.record.created)) is not None:
            return created
        return max(found.modified for found in self.files)


def folders(store: str) -> dict[str, Folder]:
    """Every object's folder, by ``kind/recipe``. What is no kind that this code knows is left out."""
    files: dict[str, list[Found]] = {}
    for found in listing(store, "objects"):
        _, *parts = found.path.split("/")
        if len(parts) > 2 and is_key(key := "/".join(parts[:2])):
            files.setdefault(key, []).append(found)
    paths = {key: f"objects/{key}/record.json" for key, there in files.items()}
    have = [key for key, there in files.items() if any(found.path == paths[key] for found in there)]
    records = dict(zip(have, read_all(store, [paths[key] for key in have]), strict=True))
    return {key: _folder(store, key, tuple(there), records.get(key)) for key, there in files.items()}


def _folder(store: str, key: str, files: tuple[Found, ...], data: bytes | None) -> Folder:
    try:
        record = None if data is None else objects.parsed(ObjectRecord, store, f"objects/{key}/record.json", data)
        return Folder(key, files, record, damaged=False)
    except UserError:
        return Folder(key, files, None, damaged=True)


def own_paths(folder: Folder) -> set[str]:
    """Of its records, and of the files that the object's own record speaks of."""
    files = folder.record.files if folder.record else ()
    return {found.path for found in folder.records} | {f"objects/{folder.key}/{file.path}" for file in files}


def mentioned(store: str, folder: Folder) -> set[str] | None:
    """Paths of the folder's records and of all that these speak of, as they are now; None where one is damaged."""
    paths = [found.path for found in folder.records]
    spoken = set(paths)
    for data in read_all(store, paths):
        try:
            mentions = _Mentions.model_validate_json(data or b"{}")
        except ValidationError:
            return None
        for file in (*mentions.files, *([mentions.file] if mentions.file else [])):
            spoken.add(f"objects/{folder.key}/{file.path}")
    return spoken


def closure(keys: Iterable[str], parents: Parents) -> set[str]:
    """Those objects, and all that they were made from."""
    found: set[str] = set()
    waiting = list(keys)
    while waiting:
        if (key := waiting.pop()) not in found:
            found.add(key)
            waiting += parents.get(key, ())
    return found


def children_first(keys: Collection[str], parents: Parents) -> Iterator[str]:
    """Each of the objects before all that it was made from; those of a damaged circle last."""
    left = dict.fromkeys(sorted(keys), 0)
    for key in left:
        for parent in parents.get(key, ()):
            if parent in left:
                left[parent] += 1
    free = [key for key, children in left.items() if children == 0]
    while left:
        key = free.pop() if free else next(iter(left))
        if left.pop(key, None) is None:
            continue
        yield key
        for parent in parents.get(key, ()):
            if parent in left:
                left[parent] -= 1
                if left[parent] == 0:
                    free.append(parent)


def _instant(text: str) -> float | None:
    """POSIX seconds; None for what is no time."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
