"""What training workers read on their desk; the workers themselves are in ``test_launch.py``."""

import threading
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from infra.train_data import write_record
from infra.training_workers import LOOK, Order, new_desk, orders


def put(desk: Path, number: int, scratch: str | None = None, *, leave: bool = False) -> None:
    write_record(desk / "order.json", Order(number=number, scratch=Path(scratch) if scratch else None, leave=leave))


def test_each_job_is_taken_once_until_the_worker_is_sent_away(tmp_path: Path):
    """The second look at one order finds nothing new; it is the next order that is taken."""
    put(tmp_path, 1, "first")
    taken = orders(tmp_path)
    assert next(taken) == Path("first")
    put(tmp_path, 2, "second")
    assert next(taken) == Path("second")
    put(tmp_path, 2, "second", leave=True)
    assert list(taken) == []


def test_a_worker_that_begins_anew_takes_the_job_at_hand(tmp_path: Path):
    put(tmp_path, 3, "third")
    assert next(orders(tmp_path)) == Path("third")
    assert next(orders(tmp_path)) == Path("third")
    assert len(list(tmp_path.glob("began-*"))) == 2


def test_a_worker_that_begins_anew_waits_where_the_last_job_is_done(tmp_path: Path):
    put(tmp_path, 3)
    taken: SimpleQueue[Path] = SimpleQueue()
    worker = threading.Thread(target=lambda: [taken.put(scratch) for scratch in orders(tmp_path)])
    worker.start()
    with pytest.raises(Empty):
        taken.get(timeout=4 * LOOK)
    put(tmp_path, 4, "fourth")
    assert taken.get(timeout=30) == Path("fourth")
    put(tmp_path, 4, leave=True)
    worker.join(timeout=30)
    assert not worker.is_alive()


def test_a_desk_in_a_relative_cache_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_CACHE", "cache")
    assert new_desk().parent == tmp_path / "cache" / "training"
