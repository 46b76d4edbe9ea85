"""Rows of a file: JSONL, JSON or Parquet, optionally gzipped, on this machine or at any address fsspec opens."""

import gzip
import io
import json
import posixpath
import zlib
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Literal, NamedTuple, cast

import fsspec
from fsspec.core import OpenFile
from pydantic import JsonValue

from alignment.errors import UserError
from infra import storage
from infra.redaction import redacted

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")


class FileRow(NamedTuple):
    """One row, or why it cannot be read."""

    unit: Literal["line", "row"]
    number: int
    """From 1."""
    value: JsonValue = None
    error: str | None = None


def read_rows(path: str) -> Iterator[FileRow]:
    """All rows of a file, in order. Blank lines of JSONL hold no row.

    Raises UserError for a file that is missing, empty, of no known type, damaged, or a Git LFS pointer.
    """
    name = path.lower().removesuffix(".gz")
    suffix = next((known for known in SUFFIXES if name.endswith(known)), None)
    data = _content(path)
    if suffix is None:
        raise UserError(f"{path}: its type is not known by its name. Name it one of {', '.join(SUFFIXES)}, or with .gz")
    data = _unpacked(path, data)
    if not data.strip():
        raise UserError(f"{path} is empty: give a file with at least one row")
    match suffix:
        case ".parquet":
            rows = _parquet(path, data)
        case ".json":
            rows = _json(path, data)
        case _:
            rows = _lines(data)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path} holds no rows: give a file with at least one")
    yield first
    yield from rows


def _content(path: str) -> bytes:
    """Paths, ``memory://`` and ``s3://`` are read as a store is: the same credentials, the same plain errors."""
    protocol, separator, _ = path.partition("://")
    try:
        if separator and protocol not in ("file", "local", "memory", "s3"):
            with cast(OpenFile, fsspec.open(path, "rb")) as file:
                return file.read()
        folder, name = _split(path)
        data = storage.read(folder, name)
    except (OSError, ValueError, ImportError) as e:
        raise UserError(f"{path} cannot be read: {redacted(' '.join(str(e).split()))}. Check the address") from e
    if data is None:
        raise UserError(f"{path} does not exist{_nearest(folder, name)}")
    return data


def _split(path: str) -> tuple[str, str]:
    folder, name = posixpath.split(path)
    return folder or ".", name


def _nearest(folder: str, name: str) -> str:
    names = storage.folders(folder, "")
    if not names:
        return f", and there is nothing in {folder}: check the path"
    near = get_close_matches(name, names, n=1)
    return (
        f"; the nearest name in {folder} is {near[0]}"
        if near
        else f", and {folder} has no name like it: check the path"
    )


def _unpacked(path: str, data: bytes) -> bytes:
    if data.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not the data: run `git lfs pull` where it was cloned")
    zipped = data.startswith(b"\x1f\x8b")
    if zipped != path.lower().endswith(".gz") and data:
        state, way_out = ("is", "name it .gz") if zipped else ("is not", "take .gz off its name")
        raise UserError(f"{path} {state} gzipped: {way_out}, or get the file again")
    try:
        return gzip.decompress(data) if zipped else data
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path} is damaged ({e}): get the file again") from e


def _lines(data: bytes) -> Iterator[FileRow]:
    for number, line in enumerate(data.split(b"\n"), start=1):  # never at the other breaks that text may hold
        if not line.strip():
            continue
        try:
            yield FileRow("line", number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")))
        except UnicodeDecodeError as e:
            yield FileRow("line", number, error=f"not UTF-8: byte 0x{line[e.start]:02x} at place {e.start + 1}")
        except (ValueError, RecursionError) as e:
            yield FileRow("line", number, error=f"malformed JSON: {e}")


def _json(path: str, data: bytes) -> Iterator[FileRow]:
    try:
        value: JsonValue = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        line, start = data.count(b"\n", 0, e.start) + 1, data.rfind(b"\n", 0, e.start) + 1
        raise UserError(
            f"{path}: line {line}: not UTF-8: byte 0x{data[e.start]:02x} at place {e.start - start + 1}. "
            "Save the file as UTF-8"
        ) from e
    except json.JSONDecodeError as e:
        if e.msg == "Extra data" and data.lstrip().startswith(b"{"):
            return _lines(data)  # many data sets name their JSONL .json
        raise UserError(f"{path}: line {e.lineno}: malformed JSON: {e}. Mend the file") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: malformed JSON: {e}. Mend the file") from e
    if not isinstance(value, list):
        raise UserError(f"{path} holds one JSON value that is no list: give a list of rows, or JSONL named .jsonl")
    return (FileRow("row", number, row) for number, row in enumerate(value, start=1))


def _parquet(path: str, data: bytes) -> Iterator[FileRow]:
    from pyarrow import ArrowException, parquet  # a second to import, and most files are JSONL

    try:
        rows = parquet.read_table(io.BytesIO(data)).to_pylist()
    except (ArrowException, OSError, ValueError) as e:
        raise UserError(f"{path} is no Parquet file that can be read: {' '.join(str(e).split())}. Write it anew") from e
    return (FileRow("row", number, row) for number, row in enumerate(rows, start=1))
