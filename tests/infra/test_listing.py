"""Many files at once: nothing is left out, nothing else is removed, and what a server refuses is told."""

from pathlib import Path

import boto3
import pytest

from alignment.errors import UserError
from infra import listing, storage
from infra.stored_files import sha256_of

FILES = {"a/x": b"one", "a/b/y": b"three", "a/.z.tmp": b"", "ab/w": b"outside"}


@pytest.fixture
def filled(store: str, overwrite) -> str:
    for path, content in FILES.items():
        overwrite(store, path, content)
    return store


def test_a_listing_has_all_files_below_a_folder_with_their_sizes_and_times(filled: str):
    found = listing.listing(filled, "a")
    assert [(f.path, f.size) for f in found] == [("a/.z.tmp", 0), ("a/b/y", 5), ("a/x", 3)]
    assert all(abs(f.modified - found[0].modified) < 60 for f in found)
    assert found[0].modified > 1.7e9
    assert listing.listing(filled, "none") == []


def test_files_are_read_in_order_and_one_that_is_not_there_is_none(filled: str):
    assert listing.read_all(filled, ["ab/w", "a/none", "a/x"]) == [b"outside", None, b"one"]
    assert listing.read_all(filled, []) == []


def test_a_digest_made_in_blocks_is_that_of_the_whole(filled: str, monkeypatch):
    monkeypatch.setattr(listing, "BLOCK", 2)
    assert listing.sha256_at(filled, "a/b/y", 5) == sha256_of(b"three")
    assert listing.sha256_at(filled, "a/none", 5) is None


def test_only_the_files_that_are_named_are_removed(filled: str):
    listing.remove_all(filled, ["a/x", "a/none", "a/.z.tmp"])
    assert [f.path for f in listing.listing(filled, "ab")] == ["ab/w"]
    assert [f.path for f in listing.listing(filled, "a")] == ["a/b/y"]
    listing.remove_all(filled, [])


def test_a_folder_goes_only_when_it_is_empty(tmp_path: Path):
    storage.write_all(str(tmp_path), "a/b", {"x": b"1"})
    (tmp_path / "a/c").mkdir()
    listing.remove_empty(str(tmp_path), ["a", "a/b", "a/c", "a/none"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "x"]


def test_a_bucket_that_is_not_there_is_told(s3_store: str):
    with pytest.raises(UserError, match="bucket no-such-bucket does not exist"):
        listing.listing("s3://no-such-bucket/x", "a")


def test_a_file_that_the_server_would_not_remove_is_told(monkeypatch):
    """A server answers a request to delete many with those it did not: that is no error of the request."""

    class Refusing:
        def call_s3(self, call, Bucket, Delete):
            assert (call, Bucket, Delete["Objects"]) == ("delete_objects", "bucket", [{"Key": "p/a"}])
            return {"Errors": [{"Key": "p/a", "Code": "AccessDenied", "Message": "not yours"}]}

    monkeypatch.setattr(listing, "open_store", lambda store: (Refusing(), "bucket/p"))
    with pytest.raises(UserError, match=r"store s3://bucket/p: cannot use a \(p/a was not removed: not yours\)"):
        listing.remove_all("s3://bucket/p", ["a"])


def test_a_folder_that_fills_while_it_is_listed_is_no_file(s3_store, monkeypatch):
    """Empty when S3 is asked what lies below it, and there when s3fs then asks what it is itself."""
    fs, _ = listing.open_store(s3_store)
    info = fs._info

    async def filled_meanwhile(path: str, *args: object, **named: object) -> object:
        boto3.client("s3").put_object(Bucket=path.split("/")[0], Key="prefix/runs/a/config.json", Body=b"{}")
        return await info(path, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "_info", filled_meanwhile)
        assert listing.listing(s3_store, "runs") == []
    assert [found.path for found in listing.listing(s3_store, "runs")] == ["runs/a/config.json"]
