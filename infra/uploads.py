"""Multipart uploads that nobody finished: S3 keeps their parts, and bills them, until someone aborts them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from infra.file_systems import explained, open_store, parse


class Upload(NamedTuple):
    """A file that is being written in parts, or was."""

    path: str
    """Relative to the store."""
    upload_id: str
    modified: float
    """When its last part arrived, in POSIX seconds; when it was begun, before there is one."""
    size: int
    """Bytes of the parts that are there."""


def open_uploads(store: str) -> list[Upload]:
    """All uploads into objects of the store; none where it is not on S3."""
    if parse(store)[0] != "s3":
        return []
    fs, root = open_store(store)
    bucket, prefix = _bucket(root)
    with explained(store, "objects"):
        found = list(_pages(fs, "list_multipart_uploads", "Uploads", Bucket=bucket, Prefix=f"{prefix}objects/"))
        return [_described(fs, bucket, prefix, upload) for upload in found if upload["Key"].startswith(prefix)]


def abort(store: str, upload: Upload) -> None:
    """Let the server forget its parts; nothing where it was finished or aborted meanwhile."""
    fs, root = open_store(store)
    bucket, prefix = _bucket(root)
    with explained(store, upload.path):
        try:
            fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=prefix + upload.path, UploadId=upload.upload_id)
        except FileNotFoundError:
            return


def _bucket(root: str) -> tuple[str, str]:
    """Bucket, and the prefix of the store's keys, with a slash at its end unless it is empty."""
    bucket, _, prefix = root.partition("/")
    return bucket, f"{prefix}/" if prefix else ""


def _described(fs: Any, bucket: str, prefix: str, upload: dict[str, Any]) -> Upload:
    key, upload_id = upload["Key"], upload["UploadId"]
    parts = list(_pages(fs, "list_parts", "Parts", Bucket=bucket, Key=key, UploadId=upload_id))
    last = max((part["LastModified"] for part in parts), default=upload["Initiated"])
    return Upload(key.removeprefix(prefix), upload_id, last.timestamp(), sum(part["Size"] for part in parts))


_MARKERS = {
    "list_multipart_uploads": (("KeyMarker", "NextKeyMarker"), ("UploadIdMarker", "NextUploadIdMarker")),
    "list_parts": (("PartNumberMarker", "NextPartNumberMarker"),),
}


def _pages(fs: Any, call: str, what: str, **asked: Any) -> Iterator[dict[str, Any]]:
    """Everything that a listing has, a thousand at a time."""
    while True:
        answer = fs.call_s3(call, **asked)
        yield from answer.get(what, [])
        if not answer.get("IsTruncated"):
            return
        asked |= {marker: answer[following] for marker, following in _MARKERS[call]}
