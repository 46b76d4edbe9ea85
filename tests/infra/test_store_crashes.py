"""What killed writers, lost answers and full disks leave: nothing that can be seen."""

import os
import signal
import subprocess

import numpy as np
import pytest
from small_rows import commit, dropped, run_python

from alignment.errors import UserError
from alignment.types import Dropped
from infra import artifacts, conditional, storage


@pytest.mark.parametrize(
    ("place", "moment"), [("local", "after the data"), ("local", "in the record"), ("s3", "in the record")]
)
def test_a_killed_writer_leaves_nothing_visible(place, moment, tmp_path, s3_store):
    """Killed between data and record, and between writing the record aside and showing it."""
    store = str(tmp_path / "store") if place == "local" else s3_store
    die = "lambda *a, **k: os.kill(os.getpid(), 9)"
    at_record = f"os.link = {die}" if place == "local" else f"conditional._put_if = {die}"
    code = f"""
        import os
        from alignment.types import Dropped
        from infra import artifacts, conditional, storage
        {f"storage.put_once = {die}" if moment == "after the data" else at_record}
        rows = [Dropped(step="select", item="a", reason="tie")]
        artifacts.commit_rows({store!r}, "pairs", "r1", rows, Dropped)
    """
    died = run_python(code)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert storage.folders(store, "objects/pairs/r1/data") != []
    assert artifacts.find(store, "pairs", "r1") is None
    assert list(artifacts.read_rows(commit(store, "a"), Dropped)) == dropped("a")


def test_a_lost_answer_to_the_commit_is_no_conflict(store, monkeypatch):
    create = storage.create
    monkeypatch.setattr(storage, "create", lambda *args: create(*args) and create(*args))
    assert list(artifacts.read_rows(commit(store, "a"), Dropped)) == dropped("a")


def test_a_full_disk_is_told_and_leaves_no_record(tmp_path, monkeypatch):
    store = str(tmp_path / "store")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for target in ((conditional, "sync"), (os, "link")):
        with monkeypatch.context() as patch:
            patch.setattr(*target, full)
            with pytest.raises(UserError, match=rf"store {store}: no space left .*\d+ bytes needed, \d+ free"):
                commit(store, "a")
        assert artifacts.find(store, "pairs", "r1") is None
    assert commit(store, "a")


def test_a_disk_that_is_really_full_keeps_what_was_there(tmp_path):
    """A 256 KiB file system takes the small object and refuses the 1 MiB one without a trace."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        small = commit(str(disk), "a")
        noise = np.random.default_rng(0).bytes(2**20).hex()
        with pytest.raises(UserError, match=rf"store {disk}: no space left to write objects/pairs/big.*\d{{6,}} bytes"):
            commit(str(disk), noise, recipe="big")
        assert artifacts.find(str(disk), "pairs", "big") is None
        assert [path for path in (disk / "objects/pairs").rglob("*.parquet") if "big" in str(path)] == []
        assert list(artifacts.read_rows(small, Dropped)) == dropped("a")
    finally:
        subprocess.run(["umount", disk], check=True)
