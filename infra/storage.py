"""Bytes in a store: a path, ``memory://`` or ``s3://``. Reads, writes, and the two conditional writes that the rest
stands on: create, and compare-and-swap.

fsspec does the transport. What it does not promise on every file system is here: that a create is exclusive and never
half visible, that a swap has one winner, and that what goes wrong is told in one line.
"""

import errno
import os
import posixpath
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
from botocore.exceptions import BotoCoreError

from alignment.errors import UserError
from alignment.secrets import without_credentials
from infra import conditional
from infra.redaction import redacted

CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
)
_s3_instances = threading.Lock()


def canonical(store: str) -> str:
    """The store's one address: an absolute path, ``memory://…`` or ``s3://…``, without a slash at the end."""
    protocol, root = _parse(store)
    return root if protocol == "file" else f"{protocol}://{root.lstrip('/')}".rstrip("/")


def is_local(store: str) -> bool:
    """Whether the store is a folder of this machine, so that its files can be opened where they are."""
    return _parse(store)[0] == "file"


def read(store: str, path: str) -> bytes | None:
    """The whole content; None when there is no such file."""
    fs, root = _open(store)
    with _explained(store, path):
        try:
            return fs.cat_file(f"{root}/{path}")
        except FileNotFoundError:
            return None


def read_version(store: str, path: str) -> tuple[bytes, str] | None:
    """Content and the version to hand to ``swap``; None when there is no such file."""
    fs, root = _open(store)
    etag = None
    if _parse(store)[0] == "s3":  # the ETag before the content: a change in between can then only make the swap lose
        with _explained(store, path):
            etag = conditional.s3_etag(fs, f"{root}/{path}")
    data = read(store, path)
    return None if data is None else (data, etag or conditional.version_of(data))


def size(store: str, path: str) -> int | None:
    """Bytes; None when there is no such file."""
    fs, root = _open(store)
    with _explained(store, path):
        try:
            return fs.info(f"{root}/{path}")["size"]
        except FileNotFoundError:
            return None


def folders(store: str, path: str) -> list[str]:
    """Names of what lies directly below, sorted, without what a killed writer left; empty when there is nothing."""
    fs, root = _open(store)
    with _explained(store, path):
        try:
            entries = fs.ls(f"{root}/{path}", detail=False)
        except FileNotFoundError:
            return []
    names = {posixpath.basename(entry.rstrip("/")) for entry in entries}
    return sorted(name for name in names if not name.startswith("."))


def write_all(store: str, folder: str, sources: Mapping[str, bytes | Path]) -> None:
    """Write files under a folder that nobody else writes to, durably; nothing of it stays when the disk is full."""
    fs, root = _open(store)
    need = sum(len(source) if isinstance(source, bytes) else source.stat().st_size for source in sources.values())
    with _explained(store, folder, need):
        try:
            for name, source in sources.items():
                path = f"{root}/{folder}/{name}"
                fs.put_file(str(source), path) if isinstance(source, Path) else fs.pipe_file(path, source)
                if is_local(store):
                    conditional.sync(Path(path), Path(root))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                with suppress(OSError):
                    fs.rm(f"{root}/{folder}", recursive=True)
            raise


def download(store: str, path: str, to: Path) -> None:
    """Copy one file of the store into a local file."""
    fs, root = _open(store)
    with _explained(store, path):
        fs.get_file(f"{root}/{path}", str(to))


def remove(store: str, path: str) -> None:
    """Remove a file or a folder with all below it; nothing when it is not there."""
    fs, root = _open(store)
    with _explained(store, path), suppress(FileNotFoundError):
        fs.rm(f"{root}/{path}", recursive=True)


def create(store: str, path: str, data: bytes) -> bool:
    """Write a file that must not exist. False when one is there, or another writer is at it.

    All or nothing on every store, also when the process is killed. Over a network False can mean that this very call
    won and its answer was lost, so read back before concluding. At least one byte: an empty file proves nothing.
    """
    if not data:
        raise ValueError(f"{path}: nothing to write")
    fs, root = _open(store)
    with _explained(store, path, len(data)):
        match _parse(store)[0]:
            case "file":
                return conditional.create_local(Path(root, path), data, Path(root))
            case "memory":
                return conditional.create_memory(fs, f"{root}/{path}", data)
            case _:
                return conditional.create_s3(fs, f"{root}/{path}", data)


def swap(store: str, path: str, data: bytes, version: str) -> bool:
    """Replace a file if its content is still the one ``read_version`` gave. False when it is not; see ``create``."""
    fs, root = _open(store)
    with _explained(store, path, len(data)):
        match _parse(store)[0]:
            case "file":
                return conditional.swap_local(Path(root, path), data, version, Path(root))
            case "memory":
                return conditional.swap_memory(fs, f"{root}/{path}", data, version)
            case _:
                return conditional.swap_s3(fs, f"{root}/{path}", data, version)


def put_once(store: str, path: str, data: bytes) -> bool:
    """Make sure that something is stored under ``path``, for good. True when it is ``data``.

    True also when an equal writer was first, or when our own answer was lost on the way: writers that must tell
    themselves apart put a nonce in. False when other bytes are there; they stay.
    """
    for wait in (0, 0.05, 0.1, 0.2, 0.4):
        time.sleep(wait)
        try:
            if create(store, path, data):
                return True
        except UserError:
            if read(store, path) == data:  # it arrived, and the answer did not
                return True
            raise
        if (found := read(store, path)) is not None:
            return found == data
    raise UserError(
        f"store {store}: {path} can neither be created nor read; run again, and check the store if it stays"
    )


def read_bytes(store: str, path: str) -> bytes:
    """The whole content. UserError when there is no such file."""
    data = read(store, path)
    if data is None:
        raise UserError(f"store {store}: there is no {path}; check the store's address and the name")
    return data


def _parse(store: str) -> tuple[str, str]:
    protocol, separator, rest = store.partition("://")
    marks = "[@:]" if protocol == "s3" else "@"  # no bucket has a colon, and a secret may hold a slash
    if separator and protocol not in ("file", "local") and re.match(f"[^/]*{marks}", rest):
        raise UserError(
            f"store {protocol}://...: an address holds no credentials; give {protocol}://NAME/PREFIX, and set "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
        )
    if not separator or protocol in ("file", "local"):
        path = rest if separator else store
        if not path:
            raise UserError(f"store {store!r} is empty: give a folder, memory://name or s3://bucket/prefix")
        return "file", os.path.abspath(os.path.expanduser(path)).rstrip("/")
    if protocol not in ("memory", "s3"):
        raise UserError(f"store {store!r}: {protocol}:// is not supported; give a folder, memory://name or s3://bucket")
    if not rest.strip("/"):
        raise UserError(f"store {store!r} names no {'bucket' if protocol == 's3' else 'place'}: {protocol}://NAME")
    return protocol, ("/" if protocol == "memory" else "") + rest.strip("/")


def _open(store: str) -> tuple[Any, str]:
    protocol, root = _parse(store)
    if protocol == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint and without_credentials(endpoint) != endpoint:
            raise UserError(
                f"store {store}: AWS_ENDPOINT_URL holds credentials; take them out, and set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            )
        credentials = tuple(os.environ.get(name) for name in CREDENTIALS)
        with _s3_instances:
            return _s3(os.getpid(), endpoint, credentials), root
    return fsspec.filesystem(protocol, auto_mkdir=True) if protocol == "file" else fsspec.filesystem(protocol), root


@lru_cache(maxsize=4)
def _s3(process: int, endpoint: str | None, credentials: tuple[str | None, ...]) -> Any:
    """One instance per process (its event loop does not survive a fork), endpoint and credentials of the environment,
    shared by all threads. Credentials from elsewhere, such as a file, it reads anew when the server refuses them."""
    from infra.renewing_s3 import RenewingS3  # half a second that a local store does not need

    addressing = {"s3": {"addressing_style": "path"}} if endpoint else {}  # bucket.localhost has no address
    fs = RenewingS3(
        endpoint_url=endpoint,
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={"retries": {"mode": "standard", "total_max_attempts": 3}, "connect_timeout": 3, **addressing},
    )
    fs.retries = 2  # times the three above: an endpoint that is down is told in seconds
    return fs


@contextmanager
def _explained(store: str, path: str, need: int = 0) -> Iterator[None]:
    """Tell what a file system or an endpoint answers in one line that names the store."""
    try:
        yield
    except (OSError, BotoCoreError) as error:
        raise UserError(f"store {store}: {_reason(store, path, need, error)}") from error


def _reason(store: str, path: str, need: int, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left to write {path} ({need} bytes needed{_free(store)}); free some or choose another store"
    code = conditional.answer_of(error).get("Error", {}).get("Code")
    match code or type(error).__name__:
        case "NoSuchBucket":
            return f"bucket {_parse(store)[1].split('/')[0]} does not exist; create it or choose another store"
        case "NoCredentialsError" | "PartialCredentialsError":
            return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        case "EndpointConnectionError" | "ConnectTimeoutError" | "ConnectionClosedError" | "ReadTimeoutError":
            return f"the endpoint does not answer ({_line(error)}); check AWS_ENDPOINT_URL and that the server is up"
        case "NotADirectoryError":
            return f"a file stands where a folder is needed for {path}; choose another store"
        case _:
            told = " ".join(part for part in (code, _line(error)) if part and part != "None")
            return f"cannot use {path} ({told}); check the address, its permissions and its credentials"


def _line(error: Exception) -> str:
    return redacted(" ".join(str(error).split())) or type(error).__name__


def _free(store: str) -> str:
    if not is_local(store):
        return ""
    with suppress(OSError):
        return f", {shutil.disk_usage(_parse(store)[1]).free} free"
    return ""
