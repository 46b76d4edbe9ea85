"""Which file system a store is on, opened once per process; and what goes wrong there, told in one line."""

import errno
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
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


def parse(store: str) -> tuple[str, str]:
    """Protocol (``file``, ``memory`` or ``s3``) and root of a store's address. UserError when it is none."""
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


def open_store(store: str) -> tuple[Any, str]:
    """The fsspec file system of a store, and the store's root on it."""
    protocol, root = parse(store)
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
    return _here(protocol), root


@cache
def _here(protocol: str) -> Any:
    """Of this machine or this process."""
    return fsspec.filesystem(protocol, auto_mkdir=True) if protocol == "file" else fsspec.filesystem(protocol)


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
def explained(store: str, path: str, need: int = 0) -> Iterator[None]:
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
            return f"bucket {parse(store)[1].split('/')[0]} does not exist; create it or choose another store"
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
    if parse(store)[0] != "file":
        return ""
    with suppress(OSError):
        return f", {shutil.disk_usage(parse(store)[1]).free} free"
    return ""
