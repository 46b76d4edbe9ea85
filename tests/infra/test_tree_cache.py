"""The cache of models keeps to its size: what nobody uses goes, what is used stays, and what cannot be is told."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.types import Artifact
from infra import artifacts, tree_cache, trees

ROOT = Path(__file__).resolve().parents[2]
SIZE = 1000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and a process that holds nothing yet."""
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tree_cache, "_held", type(tree_cache._held)())
    monkeypatch.setattr(trees, "_verified", set())
    yield tmp_path / "cache" / "trees"
    for file in tree_cache._held.values():
        file.close()


@pytest.fixture(params=["memory", "s3"])
def far(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store whose models are fetched."""
    return f"memory://{tmp_path.name}" if request.param == "memory" else request.getfixturevalue("s3_store")


def models(store: str, tmp_path: Path, count: int) -> list[Artifact]:
    """Trees of 1,000 bytes each, in two files."""
    made: list[Artifact] = []
    for number in range(count):
        folder = tmp_path / f"model-{number}"
        (folder / "nested").mkdir(parents=True)
        (folder / "config.json").write_bytes(b"%d" % number * 100)
        (folder / "nested" / "data.txt").write_bytes(b"x" * (SIZE - 100))
        made.append(artifacts.commit_tree(store, "policy", f"r{number}", folder))
    return made


def limit(monkeypatch: pytest.MonkeyPatch, trees: float, *, held: int = 8) -> None:
    monkeypatch.setenv("RATCHET_CACHE_LIMIT", str(int(trees * SIZE)))
    monkeypatch.setattr(tree_cache, "HELD", held)


def there(cache: Path) -> set[str]:
    return set(os.listdir(cache))


@pytest.mark.parametrize(
    ("told", "size"),
    [("", None), ("0", 0), ("1500", 1500), ("50GB", 50 * 10**9), ("1.5 TB", 15 * 10**11), ("2GiB", 2**31)],
)
def test_the_limit_is_bytes_or_a_size_with_a_unit(monkeypatch, told: str, size: int | None):
    monkeypatch.setenv("RATCHET_CACHE_LIMIT", told)
    assert tree_cache.cache_limit() == size
    monkeypatch.delenv("RATCHET_CACHE_LIMIT")
    assert tree_cache.cache_limit() is None


@pytest.mark.parametrize("told", ["much", "-1", "50 gigs", "1e9", "GB", "50G B"])
def test_a_limit_that_is_none_is_refused(monkeypatch, told: str):
    monkeypatch.setenv("RATCHET_CACHE_LIMIT", told)
    with pytest.raises(UserError, match=r"RATCHET_CACHE_LIMIT = '.*': give bytes, or a size such as 50GB"):
        tree_cache.cache_limit()


def test_without_a_limit_all_stay(far, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tree_cache, "HELD", 1)
    made = models(far, tmp_path, 4)
    for artifact in made:
        artifacts.fetch_tree(artifact)
    assert there(cache) == {artifact.digest for artifact in made}


def test_the_longest_unused_goes_first(far, cache, tmp_path, monkeypatch):
    """Room for two and a half: the third takes the place of the one that was not asked for again."""
    limit(monkeypatch, 2.5, held=1)
    a, b, c = models(far, tmp_path, 3)
    for artifact in (a, b, a, c):
        artifacts.fetch_tree(artifact)
    assert there(cache) == {a.digest, c.digest}
    assert (artifacts.fetch_tree(b) / "config.json").read_bytes() == b"1" * 100  # fetched again, and verified again


def test_what_this_process_asked_for_last_is_never_removed(far, cache, tmp_path, monkeypatch):
    limit(monkeypatch, 2.5, held=2)
    a, b, c = models(far, tmp_path, 3)
    kept = [artifacts.fetch_tree(a), artifacts.fetch_tree(b)]
    artifacts.fetch_tree(c)
    assert not kept[0].exists()
    assert kept[1].exists()


def test_a_model_larger_than_the_limit_is_told_with_both_numbers(far, cache, tmp_path, monkeypatch):
    limit(monkeypatch, 0.5)
    (a,) = models(far, tmp_path, 1)
    with pytest.raises(UserError, match=r"objects/policy/r0 takes 1000 bytes, and RATCHET_CACHE_LIMIT is 500: raise"):
        artifacts.fetch_tree(a)
    assert there(tmp_path / "cache") == {"tree-locks"}


def test_what_a_killed_download_left_goes_too(far, cache, tmp_path, monkeypatch):
    limit(monkeypatch, 1.5)
    a, b = models(far, tmp_path, 2)
    half = cache / f".{a.digest}.0123" / "nested"
    half.mkdir(parents=True)
    (half / "data.txt").write_bytes(b"x" * 900)
    artifacts.fetch_tree(b)
    assert there(cache) == {b.digest}


def test_equal_models_of_two_stores_are_one_copy(cache, tmp_path, monkeypatch):
    limit(monkeypatch, 1.5)
    ours, theirs = (models(f"memory://{name}-{tmp_path.name}", tmp_path / name, 1)[0] for name in ("ours", "theirs"))
    assert artifacts.fetch_tree(ours) == artifacts.fetch_tree(theirs)
    assert there(cache) == {ours.digest}


def test_a_model_of_a_local_store_takes_no_room(cache, tmp_path, monkeypatch):
    limit(monkeypatch, 0.1)
    (a,) = models(str(tmp_path / "store"), tmp_path, 1)
    assert artifacts.fetch_tree(a).is_relative_to(a.uri)
    assert not cache.exists()


@contextmanager
def user(artifact: Artifact) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has fetched this model, and uses it until the end."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("cache_user.py")), artifact.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert artifact.digest in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_another_process_uses_stays_and_is_told(s3_store, cache, tmp_path, monkeypatch):
    """Room for one: the other process has it, and when it is killed its lock is gone with it."""
    limit(monkeypatch, 1.5)
    a, b = models(s3_store, tmp_path, 2)
    with user(a):
        said = rf"objects/policy/r1 takes 1000 bytes; cache {tmp_path}/cache has 1000 bytes of models that running "
        with pytest.raises(UserError, match=said + r"processes use, and RATCHET_CACHE_LIMIT is 1500: raise it, or let"):
            artifacts.fetch_tree(b)
        assert there(cache) == {a.digest}
    assert (artifacts.fetch_tree(b) / "config.json").is_file()
    assert there(cache) == {b.digest}


def test_processes_that_fetch_at_once_keep_to_the_limit_together(s3_store, cache, tmp_path, monkeypatch):
    """Room for two, and three processes that each want another one and keep it: one of them must do without."""
    limit(monkeypatch, 2.5)
    made = models(s3_store, tmp_path, 3)
    program = str(Path(__file__).with_name("cache_user.py"))
    users = [
        subprocess.Popen(
            [sys.executable, program, artifact.model_dump_json()],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for artifact in made
    ]
    try:
        said = [process.stdout.readline() for process in users if process.stdout is not None]
        served = [artifact.digest for artifact, line in zip(made, said, strict=True) if line]
        assert len(served) == 2
        assert there(cache) == set(served)
    finally:
        ends = [process.communicate()[1] for process in users]
    (refused,) = (end for end, line in zip(ends, said, strict=True) if not line)
    assert "running processes use, and RATCHET_CACHE_LIMIT is 2500" in refused
