"""Training workers: one Ray Train run, started once, whose workers take one job after another.

Starting them is most of a small job's time: three processes import Ray Train, torch and DeepSpeed. Driver and workers
meet in a folder that all of them reach, the desk, where one file says what is to be done.
"""

import atexit
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from alignment.execution import Trainer
from alignment.types import Record
from infra import ray_pool
from infra.train_data import write_record
from infra.tree_cache import cache_folder

if TYPE_CHECKING:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

RESTARTS = 2
"""How often workers that fail start anew from the last checkpoint, and how often those that do not come up."""
LEAVING = 60.0
"""Seconds that idle workers have to end when they are told to."""
LOOK = 0.05
"""Seconds between two looks at the desk."""


class Order(Record):
    """What workers are to do now."""

    number: int
    """Counts the jobs of these workers."""
    scratch: Path | None = None
    """Folder of the job; None while there is none."""
    leave: bool = False


class TrainingWorkers:
    """As many workers as ``trainer`` asks for. ``fit`` runs in a thread of its own, so that the caller can report, keep
    a deadline and be interrupted."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self._desk = new_desk()
        self._put(Order(number=0))
        atexit.register(shutil.rmtree, self._desk, ignore_errors=True)
        threading.Thread(target=self._fit, daemon=True).start()

    def give(self, scratch: Path) -> None:
        """Let them do the job laid out in ``scratch``."""
        self._put(Order(number=self._order.number + 1, scratch=scratch))

    def done(self) -> None:
        """The job was done, or given up. A worker that starts anew must not look for it."""
        self._put(Order(number=self._order.number))

    @property
    def fit_for_more(self) -> bool:
        """Whether they can take another job, with all their restarts before them."""
        return not self.ended.is_set() and len(list(self._desk.glob("began-*"))) <= self.trainer.workers

    def close(self) -> None:
        """Send them away, and wait until their places are free."""
        self._put(Order(number=self._order.number, leave=True))
        self.ended.wait(LEAVING)
        shutil.rmtree(self._desk, ignore_errors=True)

    def _put(self, order: Order) -> None:
        self._order = order
        self._desk.mkdir(parents=True, exist_ok=True)
        write_record(self._desk / "order.json", order)

    def _fit(self) -> None:
        try:
            _ray_trainer(self.trainer, self._desk).fit()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()


def new_desk() -> Path:
    """A folder's path that workers, who run elsewhere, read as this process does."""
    return cache_folder().resolve() / "training" / f"desk-{uuid4().hex}"


_warm: list[TrainingWorkers] = []


@contextmanager
def open_workers(trainer: Trainer) -> Iterator[TrainingWorkers]:
    """Workers for one job. On the CPUs of a cluster of this run's own they stay for the next job of the same kind, if
    they take no more places than there are cores; elsewhere they make room."""
    workers = next((kept for kept in _warm if kept.trainer == trainer and kept.fit_for_more), None)
    if workers is None:
        release()
        workers = TrainingWorkers(trainer)
    else:
        _warm.remove(workers)
    kept = False
    try:
        yield workers
        kept = workers.fit_for_more and _may_stay(trainer)
    finally:
        if kept:
            workers.done()
            _warm.append(workers)
        else:
            workers.close()


def release() -> None:
    """End workers that were kept."""
    while _warm:
        _warm.pop().close()


def orders(desk: Path) -> Iterator[Path]:
    """On a worker: the folders of jobs, as they are given; ends when it is sent away."""
    (desk / f"began-{time.time_ns()}-{os.getpid()}").touch()
    done = 0
    while not (order := Order.model_validate_json((desk / "order.json").read_text())).leave:
        if order.number > done and order.scratch is not None:
            yield order.scratch
            done = order.number
        time.sleep(LOOK)


def resources(trainer: Trainer) -> dict[str, float]:
    """What each worker asks of Ray."""
    each = {"CPU": float(ray_pool.cpus_for(trainer.threads))}
    return each | {"GPU": 1.0} if trainer.gpu else each


def _may_stay(trainer: Trainer) -> bool:
    return ray_pool.own_cluster() and not trainer.gpu and trainer.workers <= (os.cpu_count() or 1)


def _ray_trainer(trainer: Trainer, desk: Path) -> "DataParallelTrainer":
    """Ray Train without its torch backend, which imports torch in the driver and in the controller: workers meet by
    themselves."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(trainer.timeout))
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    if ray_pool.own_cluster():  # nobody takes this machine away
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.config import LoggingConfig

    from infra.train_job import train_worker

    environment = ray_pool.worker_env(threads=trainer.threads, alone=trainer.workers == 1)
    if not trainer.gpu:
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return _lean_trainer()(
        train_worker,
        train_loop_config={"desk": str(desk)},
        scaling_config=ScalingConfig(
            num_workers=trainer.workers, use_gpu=trainer.gpu, resources_per_worker=resources(trainer)
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(desk),
            failure_config=FailureConfig(max_failures=RESTARTS, controller_failure_limit=RESTARTS),
            worker_runtime_env={"env_vars": environment},
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _lean_trainer() -> "type[DataParallelTrainer]":
    """Ray Train without the processes that a job of ours has no use for; each takes three seconds of a core to start.

    They are a server of Ray data sets, of which there are none, and on a cluster of our own a watchdog that frees the
    workers' places when the controller dies: the cluster ends with this process.
    """
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    idle = {"DatasetsCallback"} | ({"PlacementGroupCleanerCallback"} if ray_pool.own_cluster() else set[str]())

    class LeanTrainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            return [c for c in super()._create_default_callbacks() if type(c).__name__ not in idle]

    return LeanTrainer
