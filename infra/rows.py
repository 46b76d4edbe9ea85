"""Objects that hold rows: whole, or shard by shard, so that a crash loses at most the shards in flight.

A shard is committed like an object: its file first, then ``shard-00003.json``, created once. The object itself exists
when ``commit_shards`` has written the one record that lists them all.
"""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue, NonNegativeInt, ValidationError

from alignment.errors import UserError
from alignment.types import Artifact, Kind, Record
from infra import objects, storage, tables
from infra.objects import Asked, Parents
from infra.recipes import folder_of
from infra.stored_files import StoredFile, verify
from infra.tables import Row


class Shard(Record):
    """Rows of one object that were committed before the whole."""

    index: NonNegativeInt
    row_type: str
    rows: NonNegativeInt
    digest: str
    """Of its rows."""
    row_digests: tuple[str, ...]
    """So that the whole's digest does not depend on where shards were cut."""
    file: StoredFile
    facts: Mapping[str, JsonValue] = {}
    """Such as seconds and tokens, which a resumed run still reports."""


def find_shard(store: str, kind: Kind, recipe: str, index: int) -> Shard | None:
    path = _shard_path(kind, recipe, index)
    data = storage.read(store, path)
    return None if data is None else objects.parsed(Shard, store, path, data)


def commit_shard(
    store: str,
    kind: Kind,
    recipe: str,
    index: int,
    rows: Sequence[Row],
    row_type: type[Row],
    *,
    facts: Mapping[str, JsonValue] = {},
) -> Shard:
    """Store rows number ``index`` of an object that is still being made. Equal ones that are there are found; others
    are a Conflict."""
    digests = tables.row_digests(rows)
    digest, what = tables.digest_rows(digests), f"shard {index} of {kind}/{recipe}"
    if found := find_shard(store, kind, recipe, index):
        return objects.same(found, digest, store, what)
    (file,) = _write(store, kind, recipe, f"shard-{index:05d}.parquet", rows, row_type)
    shard = Shard(
        index=index,
        row_type=row_type.__name__,
        rows=len(rows),
        digest=digest,
        row_digests=digests,
        file=file,
        facts=facts,
    )
    if storage.put_once(store, _shard_path(kind, recipe, index), objects.record_json(shard)):
        return shard
    return objects.same(find_shard(store, kind, recipe, index), digest, store, what)


def commit_shards(
    store: str,
    kind: Kind,
    recipe: str,
    shards: Sequence[Shard],
    *,
    parents: Parents = (),
    facts: Mapping[str, JsonValue] = {},
    asked: Asked = None,
) -> Artifact:
    """Declare the object whole: shards 0 to n-1, at least one, in order.

    UserError where the store was swept of shards in this moment: then there is no such object afterwards.
    """
    indices, row_types = [shard.index for shard in shards], {shard.row_type for shard in shards}
    if not shards or indices != list(range(len(shards))) or len(row_types) != 1:
        raise ValueError(f"{kind}/{recipe}: shards {indices} of {sorted(row_types)} are not 0, 1, ... of one row type")
    files = tuple(shard.file for shard in shards)
    objects.check_sizes(store, kind, recipe, files)
    artifact = objects.commit(
        store,
        kind,
        recipe,
        tables.digest_rows(digest for shard in shards for digest in shard.row_digests),
        files,
        row_type=row_types.pop(),
        rows=sum(shard.rows for shard in shards),
        parents=parents,
        facts=facts,
        asked=asked,
    )
    left = storage.folders(store, folder_of(kind, recipe))
    if gone := [shard.index for shard in shards if _shard_name(shard.index) not in left]:
        storage.remove(store, f"{folder_of(kind, recipe)}/record.json")
        raise UserError(f"store {store}: {kind}/{recipe} was swept of shards {gone} while it was made; run again")
    return artifact


def commit_rows(
    store: str,
    kind: Kind,
    recipe: str,
    rows: Sequence[Row],
    row_type: type[Row],
    *,
    parents: Parents = (),
    facts: Mapping[str, JsonValue] = {},
    asked: Asked = None,
) -> Artifact:
    """Store rows, or none, as one object. An equal one that is there is found; another is a Conflict."""
    digest = tables.digest_rows(tables.row_digests(rows))
    if found := objects.find(store, kind, recipe):
        return objects.same(found, digest, store, f"{kind}/{recipe}")
    return objects.commit(
        store,
        kind,
        recipe,
        digest,
        _write(store, kind, recipe, "rows.parquet", rows, row_type),
        row_type=row_type.__name__,
        rows=len(rows),
        parents=parents,
        facts=facts,
        asked=asked,
    )


def read_rows(artifact: Artifact, row_type: type[Row]) -> Iterator[Row]:
    """The rows in order, a file at a time, each held to its size and SHA-256 before its first row is given."""
    record = objects.record_of(artifact)
    if record.row_type != row_type.__name__:
        raise TypeError(f"{artifact.uri} holds {record.row_type or 'files'}, not {row_type.__name__}")
    for file in record.files:
        yield from _read(objects.store_of(artifact), artifact.kind, artifact.recipe, file, row_type)


def read_shard(store: str, kind: Kind, recipe: str, shard: Shard, row_type: type[Row]) -> list[Row]:
    """The rows of a shard, held to its size and SHA-256."""
    if shard.row_type != row_type.__name__:
        raise TypeError(f"shard {shard.index} of {kind}/{recipe} holds {shard.row_type}, not {row_type.__name__}")
    return _read(store, kind, recipe, shard.file, row_type)


def _shard_path(kind: Kind, recipe: str, index: int) -> str:
    return f"{folder_of(kind, recipe)}/{_shard_name(index)}"


def _shard_name(index: int) -> str:
    return f"shard-{index:05d}.json"


def _write(
    store: str, kind: Kind, recipe: str, name: str, rows: Sequence[Row], row_type: type[Row]
) -> tuple[StoredFile, ...]:
    return objects.write_files(store, kind, recipe, {name: tables.to_parquet(rows, row_type)})


def _read(store: str, kind: Kind, recipe: str, file: StoredFile, row_type: type[Row]) -> list[Row]:
    folder = folder_of(kind, recipe)
    at = f"store {store}: {folder}/{file.path}"
    data = storage.read(store, f"{folder}/{file.path}")
    verify(file, data, at, f"remove {folder} to make it anew")
    assert data is not None
    try:
        return tables.from_parquet(data, row_type)
    except (ValueError, ValidationError) as error:
        raise UserError(f"{at} {error}; use the version of the code that wrote it") from error
