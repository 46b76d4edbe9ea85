"""The training job: what every worker of a Ray Train job runs."""

import faulthandler
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.packing import TrainingGroup, micro_batches, optimiser_steps
from alignment.probes import ProbeFailed
from infra.ray_pool import give_back_memory
from infra.train_checkpoint import restore, resumable, save_checkpoint
from infra.train_data import (
    OUTCOME,
    TrainJob,
    TrainOutcome,
    append_metrics,
    read_job,
    rewind_metrics,
    write_record,
)
from infra.train_engine import (
    Gang,
    join_gang,
    load_model,
    open_engine,
    set_arithmetic,
    without_dropout,
)
from infra.train_export import export
from infra.train_probes import padding_changes_no_logprob, reload_gives_same_logprobs
from infra.train_step import train_step
from infra.training_workers import orders


def train_worker(config: Mapping[str, Any]) -> None:
    """Do the jobs that are put on ``config["desk"]``: train, export and probe.

    An error that every worker meets alike and that a user can mend goes into the outcome, since to run again would
    meet it again; anything else is raised, and Ray Train starts the workers anew from the last checkpoint.
    """
    import torch

    gang: Gang | None = None
    for scratch in orders(Path(config["desk"])):
        if (scratch / OUTCOME).exists():
            continue  # done by workers that failed after it
        job, groups = read_job(scratch)
        left = job.deadline - time.time()
        if left <= 0:
            return  # the driver says so; raising would start the workers once more
        with (scratch / f"stacks-{time.time_ns()}.txt").open("w") as stacks:
            faulthandler.dump_traceback_later(left, exit=True, file=stacks)  # a hang says where, and ends
            try:
                gang = gang or join_gang(job.trainer, timeout=left)
                _run(job, groups, scratch, gang)
            finally:
                faulthandler.cancel_dump_traceback_later()
        give_back_memory()
    if gang is not None:
        torch.distributed.destroy_process_group()


def _run(job: TrainJob, groups: Sequence[TrainingGroup], scratch: Path, gang: Gang) -> None:
    try:
        outcome = train_in_gang(job, groups, scratch, gang)
    except ProbeFailed as failed:
        outcome = TrainOutcome(error=str(failed), evidence=failed.evidence)
    except UserError as error:
        outcome = TrainOutcome(error=str(error))
    if gang.rank == 0:
        write_record(scratch / OUTCOME, outcome)


def train_in_gang(job: TrainJob, groups: Sequence[TrainingGroup], scratch: Path, gang: Gang) -> TrainOutcome:
    """The whole job as this member of the gang: load, resume, probe, train, export, probe. The first member writes
    files.

    Every member computes the same plan, since all of it follows from the groups, the seed and the gang's size.
    """
    began = time.monotonic()
    set_arithmetic(job.trainer, job.seed)
    steps = optimiser_steps(
        len(groups), groups_per_step=job.train.groups_per_step, epochs=job.train.epochs, seed=job.seed
    )
    size = {"workers": gang.size, "tokens": job.trainer.tokens_per_pass}
    plan = [micro_batches(groups, step, **size) for step in steps]
    accumulation = max(len(share) for shares in plan for share in shares)
    model = load_model(job.policy, job.train, **without_dropout(job.policy))
    checkpoint = resumable(scratch, job)
    engine = open_engine(restore(model, checkpoint), job.train, job.trainer, accumulation=accumulation)
    first = checkpoint.resume(engine, gang) if checkpoint else 0
    if gang.rank == 0:
        rewind_metrics(scratch, first)
    probes = [padding_changes_no_logprob(engine, job, groups)]
    loaded = time.monotonic()
    for number in range(first, len(plan)):
        shares = [[[groups[i] for i in batch] for batch in share] for share in plan[number]]
        metrics = train_step(engine, shares, job.train, gang, step=number, steps=len(plan))
        if gang.rank == 0:
            append_metrics(scratch, metrics)
        if (number + 1) % job.trainer.checkpoint_steps == 0 and number + 1 < len(plan):
            save_checkpoint(engine, scratch, job, gang, step=number + 1)
    trained = time.monotonic()
    export(engine, job, gang)
    probes += reload_gives_same_logprobs(engine, job, gang, groups)
    seconds = {"load": loaded - began, "steps": trained - loaded, "export": time.monotonic() - trained}
    return TrainOutcome(probes=tuple(probes), resumed_from=first, seconds=seconds)
