"""What nobody needs any more: what no run refers to, nor anything that stays was made from, and has grown old."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from alignment.errors import UserError
from infra.listing import Found, listing
from infra.object_folders import Folder, Parents, children_first, closure, folders, mentioned, own_paths
from infra.run_files import References, listed
from infra.uploads import Upload, open_uploads

What = Literal["object", "unfinished", "litter", "upload"]


class Doomed(NamedTuple):
    """Something that is to be removed."""

    what: What
    at: str
    """Relative to the store."""
    files: tuple[Found, ...]
    modified: float
    """POSIX seconds: when it was committed, or last written to."""
    folder: Folder | None = None
    """The object's, of an object and of what was left beside one."""
    upload: Upload | None = None

    @property
    def is_object(self) -> bool:
        """A whole folder of an object, and not something beside one that stays."""
        return self.folder is not None and self.at == f"objects/{self.folder.key}"

    @property
    def size(self) -> int:
        """Bytes."""
        return self.upload.size if self.upload else sum(found.size for found in self.files)


class Plan(NamedTuple):
    """What may go, every object before those it was made from."""

    store: str
    before: float
    """POSIX seconds: only what is older goes. Infinite where no run was claimed, so that nobody is at work."""
    doomed: tuple[Doomed, ...]
    kept: int
    """Objects that stay."""
    references: References
    parents: Parents


def planned(store: str, before: float) -> Plan:
    """Find what may go. UserError where that cannot be known, because a file that refers to objects is damaged."""
    try:
        known = References(store)
    except UserError as error:
        raise UserError(f"{error}. What it refers to is not known, so nothing is swept; see ratchet verify") from error
    there = folders(store)
    parents = {folder.key: folder.record.parents for folder in there.values() if folder.record}
    _refuse_damaged(store, there, closure(known.keys, parents))
    fresh = {folder.key for folder in there.values() if folder.modified >= before}
    kept = closure(known.keys | fresh, parents) & there.keys()
    doomed = [_object(there[key], before) for key in children_first(there.keys() - kept, parents)]
    doomed += [litter for key in sorted(kept) for litter in _litter(store, there[key], before)]
    doomed += _leftovers(store, before)
    doomed += [Doomed("upload", u.path, (), u.modified, upload=u) for u in open_uploads(store) if u.modified < before]
    whole = sum(there[key].record is not None for key in kept)
    return Plan(store, before, tuple(doomed), whole, known, parents)


def _refuse_damaged(store: str, there: dict[str, Folder], needed: set[str]) -> None:
    for key in sorted(needed & there.keys()):
        if there[key].damaged:
            raise UserError(
                f"store {store}: objects/{key}/record.json is damaged, and a run needs it. What it was made from is "
                "not known, so nothing is swept; see ratchet verify"
            )


def _object(folder: Folder, before: float) -> Doomed:
    """With all that its record speaks of. What else lies there may be another writer's, and must be old itself."""
    whole = any(found.path.endswith("/record.json") for found in folder.records)
    what: What = "object" if whole else "unfinished" if folder.records else "litter"
    known = own_paths(folder)
    files = tuple(found for found in folder.files if found.path in known or found.modified < before)
    return Doomed(what, f"objects/{folder.key}", files, folder.modified, folder)


def _litter(store: str, folder: Folder, before: float) -> Iterator[Doomed]:
    """Old files beside an object that stays, an attempt at a time, which none of its records speak of."""
    if own_paths(folder).issuperset(found.path for found in folder.files):
        return
    spoken = mentioned(store, folder)
    if spoken is None:
        return
    attempts: dict[str, list[Found]] = {}
    for found in folder.files:
        if found.path not in spoken:
            attempts.setdefault("/".join(PurePosixPath(found.path).parts[:5]), []).append(found)
    for at, files in sorted(attempts.items()):
        if (modified := max(found.modified for found in files)) < before:
            yield Doomed("litter", at, tuple(files), modified, folder)


def _leftovers(store: str, before: float) -> Iterator[Doomed]:
    """What killed writers left among names, and the killed probes of a store. The locks of swaps stay."""
    hidden = [f for f in listed(store) if PurePosixPath(f.path).name.startswith(".") and f.path.endswith(".tmp")]
    for found in [*hidden, *listing(store, "probes")]:
        if found.modified < before:
            yield Doomed("litter", found.path, (found,), found.modified)
