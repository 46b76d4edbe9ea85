"""Start a training job on Ray's machines and stay with it to its end."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from alignment.config import Train
from alignment.errors import UserError
from alignment.execution import Trainer
from alignment.packing import TrainingGroup, check_loss
from alignment.probes import Probe, ProbeFailed
from alignment.types import Record
from infra import ray_pool
from infra.model_folder import context_length
from infra.train_data import OUTCOME, StepMetrics, TrainJob, TrainOutcome, read_metrics, write_job
from infra.training_workers import open_workers, resources

GRACE = 60.0
"""Seconds that workers have beyond the deadline to end themselves."""


class TrainResult(Record):
    """A finished training job."""

    steps: tuple[StepMetrics, ...]
    probes: Mapping[str, Probe]
    """By name: ``padding`` and ``reload``."""
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
    that is not finite, an export that does not reload, or ``trainer.timeout`` passed; ProbeFailed with its evidence.
    """
    began = time.monotonic()
    policy, out, scratch = policy.resolve(), out.resolve(), scratch.resolve()
    _check(policy, groups, trainer)
    check_loss(train.loss, groups)
    deadline = time.time() + trainer.timeout
    job = TrainJob(recipe=recipe, policy=policy, out=out, train=train, trainer=trainer, seed=seed, deadline=deadline)
    write_job(scratch, job, groups)
    with open_workers(trainer) as workers:
        workers.give(scratch)
        reported = 0
        while not (workers.ended.wait(0.2) or (scratch / OUTCOME).exists() or time.time() > deadline + GRACE):
            reported = _report(scratch, reported, on_step)
        _report(scratch, reported, on_step)
        outcome = _outcome(scratch, workers.error, job)
    return TrainResult(
        steps=tuple(read_metrics(scratch)),
        probes={probe.name: probe for probe in outcome.probes},
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
    for name, each in resources(trainer).items():
        asked, there = each * trainer.workers, ray.cluster_resources().get(name, 0)
        if asked > there:
            raise UserError(
                f"trainer.workers = {trainer.workers} needs {asked:g} {name}, and the cluster has {there:g}. "
                "Lower trainer.workers or trainer.threads, or add machines"
            )


def _report(scratch: Path, reported: int, on_step: Callable[[StepMetrics], None]) -> int:
    """Hand over the steps that are new; a restarted worker's repeated ones are known already."""
    steps = read_metrics(scratch)
    for metrics in steps[reported:]:
        on_step(metrics)
    return max(reported, len(steps))


def _outcome(scratch: Path, error: BaseException | None, job: TrainJob) -> TrainOutcome:
    """What the job came to, or why it did not."""
    path = scratch / OUTCOME
    outcome = TrainOutcome.model_validate_json(path.read_text()) if path.exists() else None
    if outcome is not None and outcome.error is not None:
        raise ProbeFailed(outcome.error, outcome.evidence) if outcome.evidence else UserError(outcome.error)
    if outcome is not None:
        return outcome
    if time.time() > job.deadline:
        done = len(read_metrics(scratch))
        raise UserError(
            f"training did not end within trainer.timeout = {job.trainer.timeout:g} s ({done} steps done). "
            f"{_stacks(scratch)}{ray_pool.diagnosis()}"
        )
    failures = getattr(error, "worker_failures", {})
    raise next(iter(failures.values()), error) or RuntimeError(f"{scratch}: the job left no outcome")


def _stacks(scratch: Path) -> str:
    written = [file for file in sorted(scratch.glob("stacks-*.txt")) if file.stat().st_size]
    return f"Where each worker stood is in {', '.join(map(str, written))}. " if written else ""
