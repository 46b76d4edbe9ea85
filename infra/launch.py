"""Start a training job on Ray's machines and stay with it to its end."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config import Train
from alignment.errors import UserError
from alignment.execution import Trainer
from alignment.packing import TrainingGroup, check_loss
from alignment.types import Record
from infra import ray_pool
from infra.model_folder import context_length
from infra.train_data import ReloadProbe, StepMetrics, TrainJob, TrainOutcome, read_metrics, write_job

if TYPE_CHECKING:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

RESTARTS = 2
"""How often workers that fail start anew from the last checkpoint."""
GRACE = 60.0
"""Seconds that workers have beyond the deadline to end themselves."""


class TrainResult(Record):
    """A finished training job."""

    steps: tuple[StepMetrics, ...]
    probe: ReloadProbe
    resumed_from: int
    seconds: float
    """From the call to the end."""
    phases: Mapping[str, float]
    """Seconds of the first worker: load, steps, export."""


def run_training(
    policy: Path,
    groups: Sequence[TrainingGroup],
    *,
    train: Train,
    trainer: Trainer,
    seed: int,
    out: Path,
    scratch: Path,
    recipe: str,
    on_step: Callable[[StepMetrics], None],
) -> TrainResult:
    """Train ``policy`` on ``groups`` with the workers that ``trainer`` asks for, and write the new policy to ``out``.

    Ray must be initialised. ``scratch`` is a folder that all workers reach; a job that was killed leaves checkpoints
    there, and the same job (``recipe``, workers, ZeRO stage) goes on from them. ``on_step`` is called for every
    optimiser step as it happens, in order, with those before a resumed checkpoint first.

    Raises UserError: nothing to train on, a sequence beyond the context, more workers than the cluster has, a loss
    that is not finite, an export that does not reload, or ``trainer.timeout`` passed.
    """
    began = time.monotonic()
    policy, out, scratch = policy.resolve(), out.resolve(), scratch.resolve()
    _check(policy, groups, trainer)
    check_loss(train.loss, groups)
    deadline = time.time() + trainer.timeout
    job = TrainJob(recipe=recipe, policy=policy, out=out, train=train, trainer=trainer, seed=seed, deadline=deadline)
    write_job(scratch, job, groups)
    attempt = _Attempt(_trainer(job, scratch))
    reported = 0
    while not attempt.done.wait(0.2):
        reported = _report(scratch, reported, on_step)
        if time.time() > deadline + GRACE:
            break
    _report(scratch, reported, on_step)
    outcome, probe = _outcome(scratch, attempt, job)
    return TrainResult(
        steps=tuple(read_metrics(scratch)),
        probe=probe,
        resumed_from=outcome.resumed_from,
        seconds=time.monotonic() - began,
        phases=outcome.seconds,
    )


def _check(policy: Path, groups: Sequence[TrainingGroup], trainer: Trainer) -> None:
    import ray

    if not groups:
        raise UserError("no pairs to train on: sample more candidates per prompt, or select with a smaller margin")
    context, longest = context_length(policy), max(groups, key=lambda group: group.width)
    if longest.width > context:
        raise UserError(
            f"prompt {longest.prompt_id}: {longest.width} tokens in a row, beyond the context {context} of {policy}. "
            "Lower sampler.decoding.max_tokens, or drop the prompt"
        )
    for name, each in _resources(trainer).items():
        asked, there = each * trainer.workers, ray.cluster_resources().get(name, 0)
        if asked > there:
            raise UserError(
                f"trainer.workers = {trainer.workers} needs {asked:g} {name}, and the cluster has {there:g}. "
                "Lower trainer.workers or trainer.threads, or add machines"
            )


def _resources(trainer: Trainer) -> dict[str, float]:
    each = {"CPU": float(ray_pool.cpus_for(trainer.threads))}
    return each | {"GPU": 1.0} if trainer.gpu else each


def _trainer(job: TrainJob, scratch: Path) -> "DataParallelTrainer":
    """Ray Train without its torch backend, which imports torch in the driver and in the controller: workers meet by
    themselves."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(job.trainer.timeout))
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    if ray_pool.own_cluster():  # nobody takes this machine away
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.config import LoggingConfig

    from infra.train_job import train_worker

    trainer = job.trainer
    environment = ray_pool.worker_env(threads=trainer.threads, alone=trainer.workers == 1)
    if not trainer.gpu:
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return _lean_trainer()(
        train_worker,
        train_loop_config={"scratch": str(scratch)},
        scaling_config=ScalingConfig(
            num_workers=trainer.workers, use_gpu=trainer.gpu, resources_per_worker=_resources(trainer)
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=RESTARTS, controller_failure_limit=0),
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


class _Attempt:
    """``fit`` in a thread of its own, so that the caller can report, keep a deadline and be interrupted."""

    def __init__(self, trainer: "DataParallelTrainer"):
        self.done = threading.Event()
        self.error: BaseException | None = None
        self._trainer = trainer
        threading.Thread(target=self._fit, daemon=True).start()

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()


def _report(scratch: Path, reported: int, on_step: Callable[[StepMetrics], None]) -> int:
    """Hand over the steps that are new; a restarted worker's repeated ones are known already."""
    steps = read_metrics(scratch)
    for metrics in steps[reported:]:
        on_step(metrics)
    return max(reported, len(steps))


def _outcome(scratch: Path, attempt: _Attempt, job: TrainJob) -> tuple[TrainOutcome, ReloadProbe]:
    """What the job came to, or why it did not."""
    path = scratch / "outcome.json"
    outcome = TrainOutcome.model_validate_json(path.read_text()) if path.exists() else None
    if outcome is not None and outcome.error is not None:
        raise UserError(outcome.error)
    if outcome is not None and outcome.probe is not None and attempt.error is None:
        return outcome, outcome.probe
    if time.time() > job.deadline:
        done = len(read_metrics(scratch))
        raise UserError(
            f"training did not end within trainer.timeout = {job.trainer.timeout:g} s ({done} steps done). "
            f"{_stacks(scratch)}{ray_pool.diagnosis()}"
        )
    failures = getattr(attempt.error, "worker_failures", {})
    raise next(iter(failures.values()), attempt.error) or RuntimeError(f"{scratch}: the job left no outcome")


def _stacks(scratch: Path) -> str:
    written = [file for file in sorted(scratch.glob("stacks-*.txt")) if file.stat().st_size]
    return f"Where each worker stood is in {', '.join(map(str, written))}. " if written else ""
