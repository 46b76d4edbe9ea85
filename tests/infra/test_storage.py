"""The two conditional writes, and what people are told when a store cannot be used."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from alignment.errors import UserError
from infra import conditional, storage

NONCES = [f"writer {number}".encode() for number in range(16)]


class Answered(Exception):
    """What botocore raises: it carries the server's answer."""

    def __init__(self, status: int, code: str = "") -> None:
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def refused(status: int) -> OSError:
    error = OSError(errno.EINVAL, "")
    error.__cause__ = Answered(status)
    return error


def test_of_sixteen_racing_creates_one_wins_and_its_bytes_stay(store):
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda nonce: storage.create(store, "a/b", nonce), NONCES))
    assert won.count(True) == 1
    assert storage.read(store, "a/b") == NONCES[won.index(True)]


def test_of_eight_racing_swaps_one_wins(store):
    storage.create(store, "pointer", b"first")
    found = storage.read_version(store, "pointer")
    assert found is not None
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda nonce: storage.swap(store, "pointer", nonce, found[1]), NONCES[:8]))
    assert won.count(True) == 1
    assert storage.read(store, "pointer") == NONCES[won.index(True)]


def test_a_swap_from_an_old_version_loses(store):
    storage.create(store, "pointer", b"one")
    _, old = storage.read_version(store, "pointer") or (b"", "")
    assert storage.swap(store, "pointer", b"two", old)
    assert not storage.swap(store, "pointer", b"three", old)
    assert storage.read(store, "pointer") == b"two"


def test_a_swap_of_what_is_gone_loses(store):
    storage.create(store, "pointer", b"one")
    _, version = storage.read_version(store, "pointer") or (b"", "")
    storage.remove(store, "pointer")
    assert not storage.swap(store, "pointer", b"two", version)


def test_what_is_absent_reads_as_none(store):
    assert storage.read(store, "no/such") is None
    assert storage.read_version(store, "no/such") is None
    assert storage.size(store, "no/such") is None
    assert storage.folders(store, "no") == []
    with pytest.raises(UserError, match="there is no no/such"):
        storage.read_bytes(store, "no/such")


def test_an_empty_create_is_refused(store):
    with pytest.raises(ValueError, match="nothing to write"):
        storage.create(store, "lock", b"")


def test_put_once_keeps_the_first_and_is_true_for_equal_bytes(store):
    assert storage.put_once(store, "x", b"one")
    assert storage.put_once(store, "x", b"one")
    assert not storage.put_once(store, "x", b"two")
    assert storage.read_bytes(store, "x") == b"one"


def test_a_lost_answer_is_found_out_by_reading_back(store, monkeypatch):
    create = storage.create

    def answer_lost(*args: object) -> bool:
        create(*args)
        raise UserError("the endpoint does not answer")

    monkeypatch.setattr(storage, "create", answer_lost)
    assert storage.put_once(store, "x", b"mine")
    with pytest.raises(UserError, match="does not answer"):
        storage.put_once(store, "x", b"other")


def test_a_retried_create_that_meets_its_own_first_success_is_a_success(store, monkeypatch):
    create = storage.create
    monkeypatch.setattr(storage, "create", lambda *args: create(*args) and create(*args))
    assert storage.put_once(store, "x", b"mine")


def test_a_conflict_that_nobody_won_is_tried_again(store, monkeypatch):
    answers, create = iter([False, False]), storage.create
    monkeypatch.setattr(storage, "create", lambda *args: next(answers, None) is None and create(*args))
    assert storage.put_once(store, "x", b"mine")


def test_wrong_credentials_are_told_without_an_empty_message(monkeypatch):
    def denied(*args: object) -> None:
        raise PermissionError(None) from Answered(403, "InvalidAccessKeyId")

    monkeypatch.setattr(conditional, "create_s3", denied)
    with pytest.raises(UserError, match=r"cannot use x \(InvalidAccessKeyId\); check .* credentials"):
        storage.create("s3://bucket", "x", b"x")


@pytest.mark.parametrize("status", [409, 412])
def test_a_server_that_does_not_name_the_condition_is_understood(status):
    class Refusing:
        def pipe_file(self, *args, **kwargs):
            raise refused(status)

    assert conditional.create_s3(Refusing(), "bucket/key", b"x") is False


def test_another_refusal_is_no_lost_race():
    class Failing:
        def pipe_file(self, *args, **kwargs):
            raise refused(500)

    with pytest.raises(OSError, match="22"):
        conditional.create_s3(Failing(), "bucket/key", b"x")


def test_a_server_that_takes_only_bare_etags_is_served():
    class BareETags:
        def info(self, path):
            return {"ETag": '"abc"'}

        def pipe_file(self, path, data, chunksize, IfMatch):
            if IfMatch != "abc":
                raise refused(412)

    assert conditional.swap_s3(BareETags(), "bucket/key", b"x", '"abc"')
    assert not conditional.swap_s3(BareETags(), "bucket/key", b"x", '"older"')


def test_records_go_up_in_one_part():
    """s3fs goes multipart at twice its chunk size, and some servers forget the condition there."""
    seen = {}

    class Recording:
        def pipe_file(self, path, data, **kwargs):
            seen.update(kwargs)

    conditional.create_s3(Recording(), "bucket/key", b"x")
    assert seen == {"mode": "create", "chunksize": 2 * 2**30}


def test_a_local_file_is_never_seen_half_written(tmp_path):
    data, done, partial = os.urandom(4 * 2**20), Event(), []

    def watch():
        while not done.is_set():
            found = storage.read(str(tmp_path), "big")
            partial.extend([len(found)] if found is not None and found != data else [])

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            storage.create(str(tmp_path), "big", data)
        finally:
            done.set()
        watching.result()
    assert partial == []


def test_a_local_create_leaves_no_second_name(tmp_path):
    assert storage.create(str(tmp_path), "a/b", b"x")
    assert not storage.create(str(tmp_path), "a/b", b"y")
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_listing_shows_no_litter_of_a_killed_writer(store):
    storage.write_all(store, "runs", {"b/x": b"1", "a/x": b"1", ".a.json.0f.tmp": b"half"})
    assert storage.folders(store, "runs") == ["a", "b"]


def test_addresses_of_one_store_are_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.canonical("./runs/") == storage.canonical("runs") == f"{tmp_path}/runs"
    assert storage.canonical(f"file://{tmp_path}/runs") == f"{tmp_path}/runs"
    assert storage.canonical("s3://bucket/prefix/") == "s3://bucket/prefix"
    assert storage.canonical("memory://x") == "memory://x"


def test_write_all_takes_files_and_bytes(store, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"from a file")
    storage.write_all(store, "folder", {"a": b"bytes", "sub/b": source})
    assert storage.read(store, "folder/a") == b"bytes"
    assert storage.read(store, "folder/sub/b") == b"from a file"
    storage.download(store, "folder/sub/b", tmp_path / "back")
    assert Path(tmp_path / "back").read_bytes() == b"from a file"
