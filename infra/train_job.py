"""The training job: what every worker of a Ray Train job runs."""

import faulthandler
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config import Train
from alignment.errors import UserError
from alignment.logprobs import Row, row_logprobs
from alignment.losses import pair_metrics
from alignment.packing import TrainingGroup, micro_batches, optimiser_steps, pair_logprobs, summed_loss
from infra.train_checkpoint import restore, resumable, save_checkpoint
from infra.train_data import (
    StepMetrics,
    TrainJob,
    TrainOutcome,
    append_metrics,
    read_job,
    rewind_metrics,
    write_record,
)
from infra.train_engine import (
    DeepSpeedEngine,
    Gang,
    join_gang,
    load_model,
    open_engine,
    set_arithmetic,
    step_engine,
    without_dropout,
)
from infra.train_export import export, reload_gives_same_logprobs

if TYPE_CHECKING:
    import torch

SUMS = ("loss", "accuracy", "margin", "chosen_drift", "rejected_drift")


def train_worker(config: Mapping[str, Any]) -> None:
    """Train, export and probe the job laid out in ``config["scratch"]``.

    An error that every worker meets alike and that a user can mend goes into the outcome, since to run again would
    meet it again; anything else is raised, and Ray Train starts the workers anew from the last checkpoint.
    """
    scratch = Path(config["scratch"])
    job, groups = read_job(scratch)
    left = job.deadline - time.time()
    if left <= 0:
        return  # the driver says so; raising would start the workers once more
    with (scratch / f"stacks-{time.time_ns()}.txt").open("w") as stacks:
        faulthandler.dump_traceback_later(left, exit=True, file=stacks)  # a hang says where, and ends
        try:
            _run(job, groups, scratch, left)
        finally:
            faulthandler.cancel_dump_traceback_later()


def _run(job: TrainJob, groups: Sequence[TrainingGroup], scratch: Path, left: float) -> None:
    import torch

    gang = join_gang(job.trainer, timeout=left)
    try:
        outcome = train_in_gang(job, groups, scratch, gang)
    except UserError as error:
        outcome = TrainOutcome(error=str(error))
    finally:
        torch.distributed.destroy_process_group()
    if gang.rank == 0:
        write_record(scratch / "outcome.json", outcome)


def train_in_gang(job: TrainJob, groups: Sequence[TrainingGroup], scratch: Path, gang: Gang) -> TrainOutcome:
    """The whole job as this member of the gang: load, resume, train, export, probe. The first member writes files.

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
    probe = reload_gives_same_logprobs(engine, job, gang, groups)
    seconds = {"load": loaded - began, "steps": trained - loaded, "export": time.monotonic() - trained}
    return TrainOutcome(probe=probe, resumed_from=first, seconds=seconds)


def learning_rate(step: int, steps: int, train: Train) -> float:
    """Linear warmup over the first ``warmup_fraction`` of the steps, then linear decay; never 0."""
    warmup = math.ceil(train.warmup_fraction * steps)
    factor = (step + 1) / warmup if step < warmup else (steps - step) / (steps - warmup)
    return train.learning_rate * factor


def train_step(
    engine: DeepSpeedEngine,
    shares: Sequence[Sequence[Sequence[TrainingGroup]]],
    train: Train,
    gang: Gang,
    *,
    step: int,
    steps: int,
) -> StepMetrics:
    """One optimiser step on ``shares[worker][pass]``.

    Every worker runs equally many forward passes, since under ZeRO-3 each of them gathers weights from all: who has
    fewer adds passes of weight zero. Raises UserError, on all workers, when loss or gradient is not finite.
    """
    import torch

    began = time.monotonic()
    groups = [group for share in shares for batch in share for group in batch]
    pairs = sum(len(group.chosen) for group in groups)
    accumulation = engine.gradient_accumulation_steps()
    rate = learning_rate(step, steps, train)
    for settings in engine.basic_optimizer.param_groups:
        settings["lr"] = rate
    sums, bad = torch.zeros(len(SUMS), dtype=torch.float64), torch.zeros(len(groups))
    norm = 0.0
    for number in range(accumulation):
        batch = shares[gang.rank][number] if number < len(shares[gang.rank]) else ()
        loss, added = _forward(engine, batch, train) if batch else (_nothing(engine, groups[0]), torch.zeros(len(SUMS)))
        sums += added
        bad += torch.tensor([float(not torch.isfinite(loss.detach()) and group in batch) for group in groups])
        # DeepSpeed divides by the passes of a step and averages over workers; the objective divides by all pairs
        engine.backward(loss * (gang.size * accumulation / pairs))
        norm = step_engine(engine)
    sums, bad = _over_workers(engine, sums), _over_workers(engine, bad)
    blamed = [group for group, times in zip(groups, bad.tolist(), strict=True) if times]
    if blamed or not math.isfinite(norm):
        prompts = ", ".join(group.prompt_id for group in (blamed or groups)[:8])
        raise UserError(
            f"training step {step}: {'loss' if blamed else 'gradient'} is not finite (loss {sums[0] / pairs:g}, "
            f"gradient norm {norm:g}), on prompts {prompts}. Lower train.learning_rate (now {train.learning_rate:g}), "
            "or look at these prompts' pairs"
        )
    return StepMetrics(
        step=step,
        steps=steps,
        **dict(zip(SUMS, (sums / pairs).tolist(), strict=True)),
        grad_norm=norm,
        learning_rate=rate,
        pairs=pairs,
        tokens=sum(group.tokens for group in groups),
        seconds=time.monotonic() - began,
    )


def _forward(
    engine: DeepSpeedEngine, batch: Sequence[TrainingGroup], train: Train
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Loss summed over the pairs of one pass, (), and the sums to report, (5,)."""
    import torch

    rows = [Row(group.prompt_ids, completion) for group in batch for completion in group.completions]
    lp = pair_logprobs(batch, row_logprobs(engine, rows))
    loss = summed_loss(train.loss, batch, lp)
    watched = pair_metrics(train.loss, lp)
    reported = (watched["accuracy"], watched["margin"], lp.chosen_logratio.detach(), lp.rejected_logratio.detach())
    return loss, torch.stack([loss.detach(), *(values.sum() for values in reported)]).double().cpu()


def _nothing(engine: DeepSpeedEngine, group: TrainingGroup) -> "torch.Tensor":
    """A forward pass over two tokens, of weight zero."""
    return row_logprobs(engine, [Row(group.prompt_ids[:1], group.completions[0][:1])]).sum() * 0.0


def _over_workers(engine: DeepSpeedEngine, values: "torch.Tensor") -> "torch.Tensor":
    import torch

    total = values.to(engine.device)
    torch.distributed.all_reduce(total)
    return total.cpu()
