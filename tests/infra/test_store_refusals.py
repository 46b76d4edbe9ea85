"""Stores that cannot be used are refused at the start, each with its reason."""

import time

import pytest

from alignment.errors import UserError
from infra import file_systems, storage
from infra.store_probe import check_store


def test_a_sound_store_passes_the_probe_and_keeps_nothing(store):
    check_store(store)
    assert storage.folders(store, "probes") == []


def test_a_store_that_ignores_the_condition_is_refused(store, monkeypatch):
    def overwriting(store, path, data):
        fs, root = file_systems.open_store(store)
        fs.pipe_file(f"{root}/{path}", data)
        return True

    monkeypatch.setattr(storage, "create", overwriting)
    with pytest.raises(UserError, match="8 of 8 racing writers were told that their create won"):
        check_store(store)


def test_a_store_that_ignores_if_match_is_refused(store, monkeypatch):
    def overwriting(store, path, data, version):
        fs, root = file_systems.open_store(store)
        fs.pipe_file(f"{root}/{path}", data)
        return True

    monkeypatch.setattr(storage, "swap", overwriting)
    with pytest.raises(UserError, match="8 of 8 racing writers were told that their swap won"):
        check_store(store)


def test_a_file_in_the_place_of_the_store_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file/store.*a file stands where a folder is needed"):
        check_store(str(tmp_path / "file" / "store"))
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        check_store(str(tmp_path / "file"))


def test_an_unwritable_store_is_told():
    with pytest.raises(UserError, match=r"store /proc/ratchet: cannot use"):
        check_store("/proc/ratchet")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("gs://bucket", "gs:// is not supported"),
        ("http://host/x", "http:// is not supported"),
        ("s3://", "names no bucket"),
        ("memory://", "names no place"),
        ("", "is empty"),
    ],
)
def test_an_address_that_is_none_is_told(address, told):
    with pytest.raises(UserError, match=told):
        check_store(address)


def test_a_missing_bucket_is_told(s3_store):
    with pytest.raises(UserError, match="bucket no-such-bucket does not exist"):
        check_store("s3://no-such-bucket/x")


def test_a_dead_endpoint_is_told_within_seconds(s3_store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(UserError, match=r"does not answer .*127.0.0.1:9.*AWS_ENDPOINT_URL") as told:
        check_store("s3://bucket/x")
    assert time.monotonic() - start < 20
    assert "\n" not in str(told.value)
