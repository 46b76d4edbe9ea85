"""Whether one object is what its records say: files, digests, recipe, schema. Everything that is wrong is told."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from pydantic import ValidationError

from alignment.errors import UserError
from alignment.types import SCHEMA_VERSION, Record, digest_of
from infra import objects, storage, tables
from infra.listing import Found, sha256_at
from infra.objects import ObjectRecord
from infra.rows import Shard
from infra.stored_files import StoredFile, difference, sha256_of

_SHARD = re.compile(r"shard-\d+\.json")
_ROW_TYPES: Mapping[str, type[Record]] = {row_type.__name__: row_type for row_type in tables.SCHEMAS}
NEWER = "use the version of the code that wrote it"


class Problem(Record):
    """Something that is not as it must be."""

    at: str
    """Address of the file."""
    expected: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.at}: expected {self.expected}, found {self.found}; {self.remedy}"


class Checked(NamedTuple):
    """An object's folder, looked through."""

    key: str
    """``kind/recipe``"""
    state: Literal["whole", "unfinished", "litter"]
    """Unfinished: shards and no record. Litter: neither."""
    digest: str | None = None
    """None without a record that can be read."""
    parents: tuple[str, ...] = ()
    files: int = 0
    size: int = 0
    """Bytes of the files that records mention, as found."""
    litter: tuple[int, int] = (0, 0)
    """Files that no record mentions, and their bytes."""
    problems: tuple[Problem, ...] = ()


class _Reading(NamedTuple):
    """What one data file came to."""

    sha256: str | None
    """None where the file is not the one that was recorded."""
    rows: tuple[str, ...] | None = None
    """Digests of its rows, where it has any that can be read."""


class Check:
    """One object's folder, with what is wrong there so far."""

    def __init__(self, store: str, key: str, there: Iterable[Found]):
        self.store, self.key = store, key
        self.folder = f"objects/{key}"
        self.there = {found.path.removeprefix(f"{self.folder}/"): found for found in there}
        self.problems: list[Problem] = []
        self._readings: dict[StoredFile, _Reading] = {}

    def at(self, path: str) -> str:
        return f"{storage.canonical(self.store)}/{self.folder}/{path}"

    def anew(self, shard: str | None = None) -> str:
        """The way out. Of an object that is not whole, one shard can be made anew without the others."""
        what = self.at(shard) if shard and "record.json" not in self.there else self.at("").rstrip("/")
        return f"remove {what} and run again to make it anew"

    def tell(self, path: str, expected: str, found: str, remedy: str = "") -> None:
        problem = Problem(at=self.at(path), expected=expected, found=found, remedy=remedy or self.anew(path))
        self.problems.append(problem)

    def parse(self, path: str, type_: type[tables.Row]) -> tables.Row | None:
        """A record of the folder; None, and told, where it cannot be read."""
        data = storage.read(self.store, f"{self.folder}/{path}")
        if data is None:
            return None  # removed since it was listed
        try:
            return objects.parsed(type_, self.store, path, data)
        except UserError as error:
            self.tell(path, f"a readable {type_.__name__}", cause(error))
            return None

    def read(self, file: StoredFile, row_type: str | None, shard: str | None = None) -> _Reading:
        """A data file, once, held to its size and SHA-256; with its rows' digests where it holds rows."""
        if file not in self._readings:
            self._readings[file] = self._read(file, row_type, shard)
        return self._readings[file]

    def _read(self, file: StoredFile, row_type: str | None, shard: str | None) -> _Reading:
        data, path, found = None, f"{self.folder}/{file.path}", self.there.get(file.path)
        if found is None or found.size != file.size:
            sha256 = None
        elif row_type is None:
            sha256 = sha256_at(self.store, path, file.size)
        else:
            data = storage.read(self.store, path)
            sha256 = None if data is None else sha256_of(data)
        size = None if found is None else found.size
        if differs := difference(file, size, sha256):
            self.tell(file.path, *differs, remedy=self.anew(shard))
            return _Reading(None)
        return _Reading(sha256, None if data is None else self._rows(file, data, row_type))

    def _rows(self, file: StoredFile, data: bytes, row_type: str | None) -> tuple[str, ...] | None:
        if (known := _ROW_TYPES.get(row_type or "")) is None:
            return None
        try:
            return tables.stored_digests(data, known)
        except ValueError as error:  # pydantic's and pyarrow's are, too
            self.tell(file.path, f"rows of {row_type} of schema {SCHEMA_VERSION}", cause(error), NEWER)
            return None


def check_object(store: str, key: str, there: Sequence[Found]) -> Checked:
    """Hold everything in an object's folder, which holds the files ``there``, to what its records say."""
    check = Check(store, key, there)
    record = check.parse("record.json", ObjectRecord) if "record.json" in check.there else None
    shards = {path: check.parse(path, Shard) for path in check.there if _SHARD.fullmatch(path)}
    known = {path: shard for path, shard in shards.items() if shard is not None}
    if record is not None:
        _check_identity(check, record)
        _check_content(check, record)
        _check_shards_of_whole(check, record, shards.keys())
    for path, shard in known.items():
        _check_shard(check, path, shard)
    mentioned = [*(record.files if record else ()), *(shard.file for shard in known.values())]
    state = "whole" if "record.json" in check.there else "unfinished" if shards else "litter"
    return _summed(check, record, state, {file.path for file in mentioned}, {"record.json", *shards})


def _summed(
    check: Check,
    record: ObjectRecord | None,
    state: Literal["whole", "unfinished", "litter"],
    mentioned: set[str],
    records: set[str],
) -> Checked:
    held = [found.size for path, found in check.there.items() if path in mentioned]
    # without the record nobody knows which data it mentioned
    unclear = state == "whole" and record is None
    stray = [f.size for path, f in check.there.items() if not unclear and path not in mentioned | records]
    return Checked(
        key=check.key,
        state=state,
        digest=record.digest if record else None,
        parents=record.parents if record else (),
        files=len(held),
        size=sum(held),
        litter=(len(stray), sum(stray)),
        problems=tuple(check.problems),
    )


def _check_identity(check: Check, record: ObjectRecord) -> None:
    """That the record is this folder's, and what was asked is what the recipe is the digest of."""
    if f"{record.kind}/{record.recipe}" != check.key:
        check.tell("record.json", f"the record of {check.key}", f"that of {record.kind}/{record.recipe}")
    if record.asked is not None and digest_of(record.asked) != record.recipe:
        check.tell("record.json", f"recipe {record.recipe}", f"recipe {digest_of(record.asked)} of what was asked")
    if record.asked is not None and record.asked.get("kind") != record.kind:
        check.tell("record.json", f"kind {record.kind}", f"{record.asked.get('kind')} in what was asked")
    version = SCHEMA_VERSION if record.asked is None else record.asked.get("schema")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        check.tell("record.json", f"a schema from 1 to {SCHEMA_VERSION}", f"schema {version}", NEWER)
    if record.row_type is not None and record.row_type not in _ROW_TYPES:
        check.tell("record.json", f"rows of {', '.join(_ROW_TYPES)}", record.row_type, NEWER)


def _check_content(check: Check, record: ObjectRecord) -> None:
    """Every file, and the digest over them all where each of them is what was recorded."""
    readings = [(file, check.read(file, record.row_type)) for file in record.files]
    if record.row_type is None:
        if all(reading.sha256 is not None for _, reading in readings):
            _check_digest(check, record, "files", lambda: digest_of({_within(f): r.sha256 for f, r in readings}))
    elif all(reading.rows is not None for _, reading in readings):
        digests = [digest for _, reading in readings for digest in reading.rows or ()]
        _check_digest(check, record, "rows", lambda: tables.digest_rows(digests))
        if record.rows != len(digests):
            check.tell("record.json", f"{record.rows} rows", f"{len(digests)} rows")


def _check_digest(check: Check, record: ObjectRecord, what: str, digest: Callable[[], str]) -> None:
    if (found := digest()) != record.digest:
        check.tell("record.json", f"digest {record.digest}", f"digest {found} of its {what}")


def _within(file: StoredFile) -> str:
    """Its path in the tree, below the attempt's folder ``data/{attempt}``."""
    return "/".join(PurePosixPath(file.path).parts[2:])


def _check_shards_of_whole(check: Check, record: ObjectRecord, there: Iterable[str]) -> None:
    """An object that was made shard by shard keeps the shards' records: what is made from it goes by them."""
    for file in record.files:
        name = file.path.rsplit("/", 1)[-1].removesuffix(".parquet") + ".json"
        if _SHARD.fullmatch(name) and name not in there:
            check.tell(name, "the record of a shard", "nothing")


def _check_shard(check: Check, path: str, shard: Shard) -> None:
    number = int(path.removeprefix("shard-").removesuffix(".json"))
    if shard.index != number:
        check.tell(path, f"shard {number}", f"shard {shard.index}")
    if shard.row_type not in _ROW_TYPES:
        check.tell(path, f"rows of {', '.join(_ROW_TYPES)}", shard.row_type, NEWER)
    digests = check.read(shard.file, shard.row_type, path).rows
    if digests is None:
        return
    if (found := tables.digest_rows(digests)) != shard.digest:
        check.tell(path, f"digest {shard.digest}", f"digest {found} of its rows")
    elif (found := tables.digest_rows(shard.row_digests)) != shard.digest:
        check.tell(path, f"digest {shard.digest}", f"digest {found} of the row digests it lists")
    if shard.rows != len(digests):
        check.tell(path, f"{shard.rows} rows", f"{len(digests)} rows")


def cause(error: Exception) -> str:
    """What a validation said first."""
    if isinstance(error, UserError):
        error = error.__cause__ if isinstance(error.__cause__, ValidationError) else error
    if isinstance(error, ValidationError):
        told = error.errors()[0]
        return f"{'.'.join(str(part) for part in told['loc'])} {told['msg']}".strip()
    return " ".join(str(error).split())
