"""Parts that were uploaded and never made into a file: found with their size, and aborted when they are old."""

import time
from typing import Any

import botocore.session
import pytest
from small_rows import commit

from infra import artifacts
from infra.sweep import sweep
from infra.sweep_plan import planned
from infra.uploads import open_uploads

LATER = time.time() + 10**6
PART = bytes(5 * 2**20)
"""The least that may be followed by another."""


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "moto":
        return request.getfixturevalue("s3_store")
    return f"{request.getfixturevalue('s3_bucket')}/prefix"


def begun(store: str, key: str, *parts: bytes) -> None:
    """An upload whose writer was killed."""
    import os

    client: Any = botocore.session.get_session().create_client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    bucket = store.removeprefix("s3://").split("/")[0]
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    for number, part in enumerate(parts, start=1):
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part)


def test_uploads_that_nobody_finished_are_aborted_when_they_are_old(store: str):
    made = commit(store, "a")
    artifacts.name(store, "a", "x", made)
    begun(store, "prefix/objects/policy/p1/data/0/model.safetensors", PART, b"end")
    begun(store, "prefix/objects/policy/p2/data/0/model.safetensors")
    begun(store, "other/objects/policy/p1/data/0/model.safetensors", b"another store's")
    assert sorted((upload.path, upload.size) for upload in open_uploads(store)) == [
        ("objects/policy/p1/data/0/model.safetensors", len(PART) + 3),
        ("objects/policy/p2/data/0/model.safetensors", 0),
    ]
    assert planned(store, time.time() - 3600).doomed == ()
    gone = sweep(planned(store, LATER))
    assert [doomed.what for doomed in gone] == ["upload", "upload"]
    assert sum(doomed.size for doomed in gone) == len(PART) + 3
    assert open_uploads(store) == []
    assert len(open_uploads(store.replace("prefix", "other"))) == 1
    assert artifacts.find(store, "pairs", "r1") == made


def test_more_uploads_than_fit_into_one_answer_are_all_found(monkeypatch):
    """Two pages, the second asked for by the markers of the first."""
    asked: list[dict[str, Any]] = []
    when = type("When", (), {"timestamp": lambda self: 5.0})()

    class Paging:
        def call_s3(self, call: str, **how: Any) -> dict[str, Any]:
            if call == "list_parts":
                return {}
            asked.append(how)
            upload = {"Key": f"p/objects/{len(asked)}", "UploadId": "u", "Initiated": when}
            more = {"IsTruncated": True, "NextKeyMarker": "k", "NextUploadIdMarker": "m"} if len(asked) == 1 else {}
            return {"Uploads": [upload], **more}

    monkeypatch.setattr("infra.uploads.open_store", lambda store: (Paging(), "bucket/p"))
    assert [(u.path, u.modified) for u in open_uploads("s3://bucket/p")] == [("objects/1", 5.0), ("objects/2", 5.0)]
    assert (asked[1]["KeyMarker"], asked[1]["UploadIdMarker"]) == ("k", "m")


def test_a_store_that_is_not_on_s3_has_none(tmp_path):
    assert open_uploads(str(tmp_path)) == []
