"""Rows as Arrow tables: one declared schema per row type, and the digest of rows.

Reading gives back exactly what was written. Metadata of a prompt is free JSON, so it is stored as its text; rewards
are a map from the reward model's name to (G,) numbers.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from alignment.types import (
    SCHEMA_VERSION,
    Dropped,
    Group,
    PreferencePair,
    Prompt,
    Record,
    SequenceLogprobs,
    TokenLogprobs,
    canonical_json,
    digest_of,
)

Row = TypeVar("Row", bound=Record)
ROWS_HELD = 1024
"""Rows of a file that are held as records at once, where only their digests are wanted."""


def _field(name: str, type_: pa.DataType) -> pa.Field:
    return pa.field(name, type_, nullable=False)


_TEXT, _INT, _REAL = pa.string(), pa.int32(), pa.float64()
_TOKENS = pa.list_(_INT)
_MESSAGE = pa.struct([_field("role", _TEXT), _field("content", _TEXT)])
_GOAL = pa.struct([_field("text", _TEXT), _field("placement", _TEXT)])
_PROMPT = pa.struct(
    [
        _field("id", _TEXT),
        _field("messages", pa.list_(_MESSAGE)),
        pa.field("preference", _TEXT),
        pa.field("goal", _GOAL),
        _field("metadata", _TEXT),
    ]
)
_CANDIDATE = pa.struct(
    [
        _field("index", _INT),
        _field("text", _TEXT),
        _field("token_ids", _TOKENS),
        _field("finish_reason", _TEXT),
        pa.field("parent", _INT),
        pa.field("feedback", _TEXT),
        pa.field("logprob", _REAL),
    ]
)
_FAILURE = pa.struct(
    [
        _field("prompt_id", _TEXT),
        pa.field("candidate", _INT),
        pa.field("model", _TEXT),
        _field("reason", _TEXT),
    ]
)
_GROUP = pa.struct(
    [
        _field("prompt", _PROMPT),
        _field("prompt_ids", _TOKENS),
        _field("candidates", pa.list_(_CANDIDATE)),
        _field("rewards", pa.map_(_TEXT, pa.list_(_REAL))),
        _field("failures", pa.list_(_FAILURE)),
    ]
)
_PAIR = pa.struct(
    [
        _field("prompt_id", _TEXT),
        _field("chosen", _INT),
        _field("rejected", _INT),
        _field("p", _REAL),
        _field("weight", _REAL),
        _field("source", _TEXT),
        pa.field("condition", _TEXT),
        pa.field("margin", _REAL),
    ]
)
_LOGPROBS = pa.struct(
    [
        _field("prompt_id", _TEXT),
        _field("logprobs", pa.list_(_REAL)),
        _field("lengths", _TOKENS),
    ]
)
_TOKEN_LOGPROBS = pa.struct([_field("prompt_id", _TEXT), _field("logprobs", pa.list_(pa.list_(_REAL)))])
_DROPPED = pa.struct([_field("step", _TEXT), _field("item", _TEXT), _field("reason", _TEXT)])


def _schema(row_type: type[Record], fields: pa.StructType) -> pa.Schema:
    return pa.schema(list(fields), {"row": row_type.__name__, "schema": str(SCHEMA_VERSION)})


SCHEMAS: Mapping[type[Record], pa.Schema] = {
    row_type: _schema(row_type, fields)
    for row_type, fields in (
        (Prompt, _PROMPT),
        (Group, _GROUP),
        (PreferencePair, _PAIR),
        (SequenceLogprobs, _LOGPROBS),
        (TokenLogprobs, _TOKEN_LOGPROBS),
        (Dropped, _DROPPED),
    )
}


def schema_of(row_type: type[Record]) -> pa.Schema:
    """TypeError for a type whose rows have no declared schema."""
    if row_type not in SCHEMAS:
        known = ", ".join(t.__name__ for t in SCHEMAS)
        raise TypeError(f"rows of {row_type.__name__} have no declared schema; there are {known}")
    return SCHEMAS[row_type]


def to_table(rows: Sequence[Row], row_type: type[Row]) -> pa.Table:
    """One table row per record, in order; no rows give an empty table with its schema."""
    schema = schema_of(row_type)
    if strangers := {type(row).__name__ for row in rows} - {row_type.__name__}:
        raise TypeError(f"rows of {row_type.__name__} hold {', '.join(sorted(strangers))}")
    return pa.Table.from_pylist([_pack(row.model_dump()) for row in rows], schema)


def from_table(table: pa.Table, row_type: type[Row]) -> list[Row]:
    """The records, validated. ValueError when the table was written with another schema."""
    _check_schema(table.schema, row_type)
    return [row_type.model_validate(_unpack(row)) for row in table.to_pylist()]


def _check_schema(schema: pa.Schema, row_type: type[Record]) -> None:
    expected = schema_of(row_type)
    if not schema.equals(expected) or schema.metadata != expected.metadata:
        raise ValueError(f"holds {_told(schema)}, this code reads {_told(expected)}")


def to_parquet(rows: Sequence[Row], row_type: type[Row]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(to_table(rows, row_type), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def from_parquet(data: bytes, row_type: type[Row]) -> list[Row]:
    return from_table(pq.read_table(pa.BufferReader(data)), row_type)


def stored_digests(data: bytes, row_type: type[Row]) -> tuple[str, ...]:
    """``row_digests`` of a Parquet file's rows, of which a part at a time is held. ValueError as ``from_table``."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        _check_schema(file.schema_arrow, row_type)
        batches = file.iter_batches(batch_size=ROWS_HELD, use_threads=False)
        parts = (pa.Table.from_batches([batch], file.schema_arrow) for batch in batches)
        return tuple(digest for part in parts for digest in row_digests(from_table(part, row_type)))


def row_digests(rows: Sequence[Record]) -> tuple[str, ...]:
    """SHA-256 of each row's canonical JSON. ValueError, naming the row, for NaN, infinity and broken text."""
    return tuple(_row_digest(number, row) for number, row in enumerate(rows))


def digest_rows(digests: Iterable[str]) -> str:
    """Digest of rows in order, from their digests: the same however they are cut into shards or stored."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _row_digest(number: int, row: Record) -> str:
    try:
        return digest_of(row.model_dump(mode="json"))
    except ValueError as error:
        raise ValueError(f"row {number} ({type(row).__name__}): {error}") from error


def _pack(row: dict[str, Any]) -> dict[str, Any]:
    """Free JSON becomes text, a mapping becomes the list of its items."""
    if "metadata" in row:
        row["metadata"] = canonical_json(row["metadata"])
    if "prompt" in row:
        _pack(row["prompt"])
        row["rewards"] = list(row["rewards"].items())
    return row


def _unpack(row: dict[str, Any]) -> dict[str, Any]:
    if "metadata" in row:
        row["metadata"] = json.loads(row["metadata"])
    if "prompt" in row:
        _unpack(row["prompt"])
        row["rewards"] = dict(row["rewards"])
    return row


def _told(schema: pa.Schema) -> str:
    metadata = schema.metadata or {}
    row, version = metadata.get(b"row", b"unknown rows"), metadata.get(b"schema", b"?")
    return f"{row.decode()} of schema {version.decode()} with columns {', '.join(schema.names)}"
