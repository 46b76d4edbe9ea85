"""One process at a time, and nothing taken over from a killed one but what is whole."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_kept_checkpoints import checkpoint, contents

from alignment.errors import UserError
from infra.attempts import alone, new_attempt
from infra.train_data import read_metrics

ROOT = Path(__file__).resolve().parents[2]

# Adds 1 to a number in a file, slowly, while it is alone; says when it is.
COUNT = """
import sys, time
from pathlib import Path
from infra.attempts import alone
folder, number = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(int(sys.argv[3])):
    with alone(folder, timeout=60, what="counting"):
        print("alone", flush=True)
        found = int(number.read_text())
        time.sleep(float(sys.argv[4]))
        number.write_text(str(found + 1))
"""


def counting(folder: Path, number: Path, times: int, seconds: float) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COUNT, str(folder), str(number), str(times), str(seconds)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_take_turns_and_leave_nothing(tmp_path):
    """Three count to three each; without turns, numbers would be lost."""
    number = tmp_path / "number"
    number.write_text("0")
    counters = [counting(tmp_path / "work", number, 3, 0.05) for _ in range(3)]
    assert [counter.wait() for counter in counters] == [0] * 3
    assert number.read_text() == "9"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_a_lock_that_was_removed_between_opening_and_locking_is_none(tmp_path, monkeypatch):
    """Its holder ended just then, and another process is alone already, by a new file of the same name."""
    path, opened, others = tmp_path / "work.lock", os.open, []

    def overtaken(*asked: Any) -> int:
        lock = opened(*asked)
        if not others:
            path.unlink()
            others.append(opened(path, os.O_RDWR | os.O_CREAT))
            fcntl.flock(others[0], fcntl.LOCK_EX)
        return lock

    monkeypatch.setattr(os, "open", overtaken)
    with pytest.raises(UserError, match="is locked"), alone(tmp_path / "work", timeout=0.3, what="training r1"):
        raise AssertionError("not alone")
    os.close(others[0])


def test_a_killed_process_lets_go(tmp_path):
    (tmp_path / "number").write_text("0")
    holder = counting(tmp_path / "work", tmp_path / "number", 1, 600)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "alone\n"
    said = r"training r1: another process .* for 0\.3 s \(.*work\.lock is locked\)"
    with pytest.raises(UserError, match=said), alone(tmp_path / "work", timeout=0.3, what="training r1"):
        raise AssertionError("not alone")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    began = time.monotonic()
    with alone(tmp_path / "work", timeout=5, what="training r1"):
        assert time.monotonic() - began < 2


def test_an_attempt_takes_over_the_newest_whole_checkpoint_of_those_before(tmp_path):
    """And is out of reach of a killed driver's workers, which know the folders they were given and no other."""
    first, second = tmp_path / "job-a", tmp_path / "job-b"
    checkpoint(first, 2)
    written = contents(checkpoint(second, 6))
    (second / "checkpoint-8").mkdir()  # killed before its mark was written
    attempt = new_attempt(tmp_path)
    assert [folder.name for folder in attempt.glob("checkpoint-*")] == ["checkpoint-6"]
    assert contents(attempt / "checkpoint-6") == written
    assert [m.step for m in read_metrics(attempt)] == [0, 1, 2, 3, 4, 5]
    assert list(tmp_path.iterdir()) == [attempt]


def test_a_first_attempt_begins_with_nothing(tmp_path):
    assert list(new_attempt(tmp_path / "new").iterdir()) == []
