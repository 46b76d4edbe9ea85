"""The store on a real S3 server: races have one winner, and nothing that was acknowledged is lost in a crash."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import botocore.session
import pytest

from alignment.errors import UserError
from alignment.types import Dropped
from infra import artifacts, file_systems, storage

pytestmark = pytest.mark.s3

WRITERS = 16


def rows(*items: str) -> list[Dropped]:
    return [Dropped(step="select", item=item, reason="tie") for item in items]


def winners(write: Callable[[bytes], bool]) -> list[bytes]:
    """Of 16 writers released at once, those who were told that their bytes are there."""
    start, contents = Barrier(WRITERS), [f"writer {k}".encode() for k in range(WRITERS)]

    def run(content: bytes) -> bool:
        start.wait()
        return write(content)

    with ThreadPoolExecutor(WRITERS) as pool:
        return [content for content, won in zip(contents, pool.map(run, contents), strict=True) if won]


def test_of_sixteen_creators_exactly_one_wins_in_every_race(s3_bucket):
    for k in range(10):
        won = winners(lambda content, k=k: storage.put_once(s3_bucket, f"race/{k}", content))
        assert len(won) == 1
        assert storage.read_bytes(s3_bucket, f"race/{k}") == won[0]


def test_of_sixteen_swaps_from_one_version_exactly_one_wins(s3_bucket):
    """The second swap from a version that is gone wins nothing, however often it is tried."""
    assert storage.put_once(s3_bucket, "pointer", b"start")
    for _ in range(10):
        _, version = storage.read_version(s3_bucket, "pointer")
        won = winners(lambda content, v=version: storage.swap(s3_bucket, "pointer", content + v.encode(), v))
        assert len(won) == 1
        assert storage.read_bytes(s3_bucket, "pointer").startswith(won[0])
        assert not storage.swap(s3_bucket, "pointer", b"late", version)


def test_the_store_check_passes_a_plain_bucket_and_refuses_a_versioned_one(s3_bucket, s3_server):
    """With versioning on, every one of the racing creators is told that it won."""
    artifacts.check_store(s3_bucket)
    client = botocore.session.get_session().create_client("s3", endpoint_url=s3_server.gateway.endpoint)
    client.put_bucket_versioning(Bucket=s3_bucket.removeprefix("s3://"), VersioningConfiguration={"Status": "Enabled"})
    with pytest.raises(UserError, match="racing writers were told that their create won"):
        artifacts.check_store(s3_bucket)


def test_a_wrong_secret_and_a_missing_bucket_are_told_before_anything_is_written(s3_bucket, monkeypatch):
    with pytest.raises(UserError, match="bucket no-such-bucket does not exist"):
        artifacts.check_store("s3://no-such-bucket")
    file_systems._s3.cache_clear()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match="SignatureDoesNotMatch"):
        artifacts.check_store(s3_bucket)
    file_systems._s3.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("crash", ["gateway", "everything"])
def test_no_acknowledged_commit_is_lost_when_the_server_is_killed(s3_bucket, s3_server, crash):
    """kill -9 while four writers commit; afterwards every commit that returned reads back whole, and the same
    commits made again change nothing and complete the rest."""
    acknowledged: dict[str, str] = {}
    stop = threading.Event()

    def commit(recipe: str) -> None:
        made = artifacts.commit_rows(s3_bucket, "pairs", recipe, rows(recipe, "x" * 1000), Dropped)
        acknowledged[recipe] = made.digest

    def write(writer: int) -> None:
        k = 0
        while not stop.is_set():
            try:
                commit(f"w{writer}-{k}")
            except UserError:  # the server is down
                stop.wait(0.2)
            else:
                k += 1

    commit("first")
    writers = [threading.Thread(target=write, args=(w,)) for w in range(4)]
    for thread in writers:
        thread.start()
    stop.wait(3)
    gateway = s3_server.gateway
    gateway.kill_gateway() if crash == "gateway" else gateway.kill()
    stop.set()
    gateway.start_gateway() if crash == "gateway" else gateway.start()
    for thread in writers:
        thread.join()

    assert len(acknowledged) > 10
    for recipe, digest in acknowledged.items():
        found = artifacts.find(s3_bucket, "pairs", recipe)
        assert found is not None
        assert found.digest == digest
        assert [row.item for row in artifacts.read_rows(found, Dropped)] == [recipe, "x" * 1000]
    before = dict(acknowledged)
    for recipe in before:
        commit(recipe)
    assert acknowledged == before
