"""The last checkpoint of a training job, kept in the store: for a driver whose machine is gone.

It lies beside the object that the job is to become, outside its record. Files go first, under a key of this attempt
alone, then one small record that lists them; the checkpoint before goes last. What is fetched is held to size and
SHA-256, like everything else that is read from a store.
"""

import logging
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self
from uuid import uuid4

from pydantic import NonNegativeInt

from alignment.errors import UserError
from alignment.types import Kind, Record
from infra import objects, storage
from infra.stored_files import StoredFile, described, verify
from infra.train_checkpoint import newest
from infra.train_data import METRICS, metrics_before

KIND: Kind = "policy"
_NAME = re.compile(r"checkpoint-([0-9]{8})\.json")


class Kept(Record):
    """``checkpoint-00000050.json``: that a checkpoint is whole, and its files."""

    step: NonNegativeInt
    files: tuple[StoredFile, ...]


class Keeper:
    """Copies checkpoints of one job into the store while the job goes on, one at a time, the newest there is.

    A checkpoint that cannot be stored is no reason to end the training that it is to protect: that is logged, and the
    next one is tried.
    """

    def __init__(self, store: str, recipe: str, scratch: Path):
        self._store, self._recipe, self._scratch = store, recipe, scratch
        self._last = 0
        self._copying: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keeper")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait for a copy that is under way."""
        self._thread.shutdown()

    def look(self) -> None:
        """Begin to copy the newest checkpoint, if it is new and no other copy is under way."""
        if self._copying is not None and not self._copying.done():
            return
        folder = newest(self._scratch)
        if folder is None or folder.step <= self._last:
            return
        self._last = folder.step
        self._copying = self._thread.submit(self._keep, folder.folder, folder.step)

    def _keep(self, folder: Path, step: int) -> None:
        aside = self._scratch / f"keeping-{uuid4().hex}"
        try:
            shutil.copytree(folder, aside, copy_function=_linked)  # the job removes it when it has written the next
            (aside / METRICS).write_text(metrics_before(self._scratch, step))
            keep(self._store, self._recipe, aside, step)
        except (FileNotFoundError, shutil.Error):
            logging.getLogger(__name__).info("checkpoint %s was replaced before it could be stored", step)
        except UserError as error:
            logging.getLogger(__name__).warning("checkpoint %s of the training job is not kept: %s", step, error)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def keep(store: str, recipe: str, folder: Path, step: int) -> None:
    """Store a folder as the job's checkpoint after ``step`` steps; remove older ones. One that is there is found."""
    before = [kept for kept in _steps(store, recipe) if kept < step]
    path, attempt = _path(recipe, step), f"checkpoints/{uuid4().hex}"
    sources = {file.name: file for file in sorted(folder.iterdir())}
    storage.write_all(store, f"{objects.folder_of(KIND, recipe)}/{attempt}", sources)
    files = tuple(described(f"{attempt}/{name}", source) for name, source in sources.items())
    objects.check_sizes(store, KIND, recipe, files)
    if not storage.put_once(store, path, objects.record_json(Kept(step=step, files=files))):
        storage.remove(store, f"{objects.folder_of(KIND, recipe)}/{attempt}")  # another driver was first
    for older in before:
        _remove(store, recipe, older)


def fetch(store: str, recipe: str, scratch: Path) -> int | None:
    """Lay the newest stored checkpoint of a job into its scratch folder, unless one as new is there; return its step.

    None where there is nothing to fetch. UserError for files that are missing or damaged.
    """
    here = newest(scratch)
    steps = [step for step in _steps(store, recipe) if here is None or step > here.step]
    if not steps:
        return None
    step = max(steps)
    path = _path(recipe, step)
    kept = objects.parsed(Kept, store, path, storage.read_bytes(store, path))
    aside = scratch / f"fetching-{uuid4().hex}"
    aside.mkdir(parents=True)
    try:
        for file in kept.files:
            to, at = aside / Path(file.path).name, f"{objects.folder_of(KIND, recipe)}/{file.path}"
            storage.download(store, at, to)
            verify(file, to, f"store {store}: {at}", f"remove {path} to begin the training anew")
        os.replace(aside / METRICS, scratch / METRICS)
        aside.rename(scratch / f"checkpoint-{step}")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return step


def forget(store: str, recipe: str) -> None:
    """Remove what is kept of a job that has become its object."""
    for step in _steps(store, recipe):
        _remove(store, recipe, step)
    storage.remove(store, f"{objects.folder_of(KIND, recipe)}/checkpoints")


def _remove(store: str, recipe: str, step: int) -> None:
    """The record first: without it there is no checkpoint, with it all files must be there."""
    path = _path(recipe, step)
    data = storage.read(store, path)
    if data is None:
        return
    kept = objects.parsed(Kept, store, path, data)
    storage.remove(store, path)
    for attempt in {str(PurePosixPath(file.path).parent) for file in kept.files}:
        storage.remove(store, f"{objects.folder_of(KIND, recipe)}/{attempt}")


def _steps(store: str, recipe: str) -> list[int]:
    names = storage.folders(store, objects.folder_of(KIND, recipe))
    return [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]


def _path(recipe: str, step: int) -> str:
    return f"{objects.folder_of(KIND, recipe)}/checkpoint-{step:08d}.json"


def _linked(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copy2(source, to)
