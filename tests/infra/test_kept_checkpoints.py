"""A training job's checkpoint in the store: whole or not there, the newest one, and gone when the job is done."""

import logging
import shutil
from pathlib import Path

import pytest

from alignment.errors import UserError
from infra import kept_checkpoints, storage
from infra.kept_checkpoints import Keeper, fetch, forget, keep
from infra.train_checkpoint import newest
from infra.train_data import METRICS, StepMetrics, append_metrics, read_metrics

RECIPE = "r1"
MARK = '{{"recipe": "r1", "workers": 1, "zero_stage": 0, "offload": false, "step": {step}}}'


def step_metrics(step: int) -> StepMetrics:
    numbers = dict.fromkeys(
        ("loss", "accuracy", "margin", "chosen_drift", "rejected_drift", "grad_norm", "learning_rate", "seconds"), 0.5
    )
    return StepMetrics(step=step, steps=9, pairs=1, tokens=1, **numbers)


def checkpoint(scratch: Path, step: int, weights: bytes = b"weights") -> Path:
    """A job's folder as its workers leave it after ``step`` steps: the checkpoint before is removed."""
    folder = scratch / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in ("weights.safetensors", "rank-0.safetensors"):
        (folder / name).write_bytes(weights + name.encode())
    for number in range(len(read_metrics(scratch)), step + 1):  # one step further than the checkpoint
        append_metrics(scratch, step_metrics(number))
    (folder / "mark.json").write_text(MARK.format(step=step))
    for older in scratch.glob("checkpoint-*"):
        if older != folder:
            shutil.rmtree(older)
    return folder


def kept(store: str, scratch: Path) -> None:
    with Keeper(store, RECIPE, scratch) as keeper:
        keeper.look()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def names(store: str) -> list[str]:
    return storage.folders(store, f"objects/policy/{RECIPE}")


def test_another_machine_goes_on_where_this_one_was(store, tmp_path):
    """With the checkpoint's files, and the metrics of the steps that went into it, and of no later one."""
    here, there = tmp_path / "here", tmp_path / "there"
    written = contents(checkpoint(here, 4))
    kept(store, here)
    shutil.rmtree(here)
    assert fetch(store, RECIPE, there) == 4
    assert contents(there / "checkpoint-4") == written
    assert [m.step for m in read_metrics(there)] == [0, 1, 2, 3]
    assert [path.name for path in there.iterdir() if "ing-" in path.name] == []


def test_only_the_newest_is_kept(store, tmp_path):
    for step in (2, 4):
        checkpoint(tmp_path / "here", step)
        kept(store, tmp_path / "here")
    assert names(store) == ["checkpoint-00000004.json", "checkpoints"]
    (attempt,) = storage.folders(store, f"objects/policy/{RECIPE}/checkpoints")
    assert sorted(storage.folders(store, f"objects/policy/{RECIPE}/checkpoints/{attempt}")) == [
        "mark.json", METRICS, "rank-0.safetensors", "weights.safetensors"
    ]  # fmt: skip


def test_a_job_that_is_done_leaves_none(store, tmp_path):
    checkpoint(tmp_path / "here", 4)
    kept(store, tmp_path / "here")
    forget(store, RECIPE)
    assert names(store) == []
    assert fetch(store, RECIPE, tmp_path / "there") is None
    assert newest(tmp_path / "there") is None


def test_a_newer_one_on_this_machine_is_not_overwritten(store, tmp_path):
    here = tmp_path / "here"
    checkpoint(here, 4)
    kept(store, here)
    checkpoint(here, 6)
    assert fetch(store, RECIPE, here) is None
    assert [folder.name for folder in here.glob("checkpoint-*")] == ["checkpoint-6"]
    assert len(read_metrics(here)) == 7


def test_of_two_drivers_the_first_ones_checkpoint_stays_whole(store, tmp_path):
    first, second = checkpoint(tmp_path / "a", 4, b"first"), checkpoint(tmp_path / "b", 4, b"second")
    (first / METRICS).touch()
    (second / METRICS).write_text("")
    for folder in (first, second):
        keep(store, RECIPE, folder, 4)
    assert fetch(store, RECIPE, tmp_path / "there") == 4
    assert (tmp_path / "there/checkpoint-4/weights.safetensors").read_bytes().startswith(b"first")
    assert len(storage.folders(store, f"objects/policy/{RECIPE}/checkpoints")) == 1


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_one_is_named_and_not_resumed(damage, store, tmp_path):
    checkpoint(tmp_path / "here", 4)
    kept(store, tmp_path / "here")
    (attempt,) = storage.folders(store, f"objects/policy/{RECIPE}/checkpoints")
    path = f"objects/policy/{RECIPE}/checkpoints/{attempt}/weights.safetensors"
    size = storage.size(store, path)
    storage.remove(store, path)
    if damage == "changed":
        storage.write_all(store, str(Path(path).parent), {"weights.safetensors": b"x" * (size or 0)})
    said = "expected sha256" if damage == "changed" else "weights.safetensors"
    with pytest.raises(UserError, match=said):
        fetch(store, RECIPE, tmp_path / "there")
    assert newest(tmp_path / "there") is None


def test_a_copy_cut_short_is_no_checkpoint(store, tmp_path, monkeypatch):
    """Killed between the files and the record that lists them."""
    folder = checkpoint(tmp_path / "here", 4)

    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put_once", killed)
        with pytest.raises(KeyboardInterrupt):
            keep(store, RECIPE, folder, 4)
    assert fetch(store, RECIPE, tmp_path / "there") is None


def test_training_goes_on_where_the_store_does_not_take_it(tmp_path, caplog):
    """And the next checkpoint is tried again."""
    here = tmp_path / "here"
    checkpoint(here, 2)
    (tmp_path / "store").write_text("a file")
    with caplog.at_level(logging.WARNING), Keeper(str(tmp_path / "store"), RECIPE, here) as keeper:
        keeper.look()
        keeper._thread.submit(lambda: None).result()
        assert "checkpoint 2 of the training job is not kept: store" in caplog.text
        (tmp_path / "store").unlink()
        checkpoint(here, 4)
        keeper.look()
    assert fetch(str(tmp_path / "store"), RECIPE, tmp_path / "there") == 4


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_kept_as_it_was(store, tmp_path, monkeypatch):
    here = tmp_path / "here"
    written = contents(checkpoint(here, 2))
    write_all = storage.write_all

    def replaced_meanwhile(*args):
        if not (here / "checkpoint-4").exists():
            checkpoint(here, 4)
        write_all(*args)

    monkeypatch.setattr(kept_checkpoints.storage, "write_all", replaced_meanwhile)
    kept(store, here)
    assert fetch(store, RECIPE, tmp_path / "there") == 2
    assert contents(tmp_path / "there/checkpoint-2") == written
