"""One optimiser step: forward and backward passes of every worker, one loss over all pairs of the step."""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from alignment.config import Train
from alignment.errors import UserError
from alignment.group_loss import pair_logprobs, step_slopes, summed_loss
from alignment.logprobs import Row, row_confidences, row_logprobs, token_logprobs
from alignment.losses import WPO, pair_metrics, spans_step, weighs_tokens
from alignment.packing import TrainingGroup
from infra.train_data import StepMetrics
from infra.train_engine import DeepSpeedEngine, Gang, step_engine

if TYPE_CHECKING:
    import torch

SUMS = ("loss", "accuracy", "margin", "chosen_drift", "rejected_drift")


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
    own = shares[gang.rank]
    passes = [*own, *[()] * (accumulation - len(own))]
    ahead = _look_ahead(engine, shares, passes, train, gang) if spans_step(train.loss) else None
    sums, bad = torch.zeros(len(SUMS), dtype=torch.float64), torch.zeros(len(groups))
    norm = 0.0
    for number, batch in enumerate(passes):
        if batch:
            loss, added = _forward(engine, batch, train, groups, ahead.slopes[number] if ahead else None)
        else:
            loss, added = _nothing(engine, groups[0]), torch.zeros(len(SUMS))
        sums += added
        bad += torch.tensor([float(not torch.isfinite(added).all() and group in batch) for group in groups])
        # DeepSpeed divides by the passes of a step and averages over workers; the objective divides by all pairs
        engine.backward(loss * (gang.size * accumulation / pairs))
        norm = step_engine(engine)
    sums, bad = _over_workers(engine, sums), _over_workers(engine, bad)
    if ahead:
        sums[0] = ahead.loss
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
        tokens=sum(group.tokens for group in groups) * (2 if ahead else 1),
        seconds=time.monotonic() - began,
    )


class Ahead(NamedTuple):
    """What a loss that spans the step asks for before the first backward pass."""

    loss: float
    """Summed over all pairs of the step."""
    slopes: "list[torch.Tensor]"
    """By pass of this worker, the loss's slope by the log-probability of each completion."""


def _look_ahead(
    engine: DeepSpeedEngine,
    shares: Sequence[Sequence[Sequence[TrainingGroup]]],
    passes: Sequence[Sequence[TrainingGroup]],
    train: Train,
    gang: Gang,
) -> Ahead:
    """Every pass of the step without gradient, all completions' log-probabilities to every worker, and one loss."""
    import torch

    batches = [(worker, batch) for worker, share in enumerate(shares) for batch in share]
    sizes = [sum(len(group.completions) for group in batch) for _, batch in batches]
    with torch.no_grad():
        found = iter([row_logprobs(engine, _rows(b)) if b else _nothing(engine, batches[0][1][0]) for b in passes])
        parts = [
            next(found).cpu() if worker == gang.rank else torch.zeros(size)
            for (worker, _), size in zip(batches, sizes, strict=True)
        ]
    policy_R = _over_workers(engine, torch.cat(parts))
    loss, slopes_R = step_slopes(train.loss, [group for _, batch in batches for group in batch], policy_R)
    of_batches = zip(batches, slopes_R.to(engine.device).split(sizes), strict=True)
    return Ahead(float(loss), [part for (worker, _), part in of_batches if worker == gang.rank])


def _rows(batch: Sequence[TrainingGroup]) -> list[Row]:
    return [Row(group.prompt_ids, completion) for group in batch for completion in group.completions]


def _forward(
    engine: DeepSpeedEngine,
    batch: Sequence[TrainingGroup],
    train: Train,
    step: Sequence[TrainingGroup],
    slopes_R: "torch.Tensor | None",
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """What to run backward, (): the loss summed over the pairs of one pass, or its stand-in with the same gradient
    where the loss spans the step; and the sums to report, (5,), whose loss is 0 then."""
    import torch

    rows = _rows(batch)
    confidence_R = tokens_R_T = None
    if isinstance(train.loss, WPO):
        policy_R, confidence_R = row_confidences(engine, rows)
    elif weighs_tokens(train.loss):
        tokens_R_T = token_logprobs(engine, rows)
        policy_R = tokens_R_T.sum(dim=1)
    else:
        policy_R = row_logprobs(engine, rows)
    lp = pair_logprobs(batch, policy_R, step=step, confidence_R=confidence_R, tokens_R_T=tokens_R_T)
    loss = summed_loss(train.loss, batch, lp) if slopes_R is None else (slopes_R * policy_R).sum()
    told = loss.detach() if slopes_R is None else 0 * policy_R.detach().sum()
    watched = pair_metrics(train.loss, lp)
    reported = (watched["accuracy"], watched["margin"], lp.chosen_logratio.detach(), lp.rejected_logratio.detach())
    return loss, torch.stack([told, *(values.sum() for values in reported)]).double().cpu()


def _nothing(engine: DeepSpeedEngine, group: TrainingGroup) -> "torch.Tensor":
    """A forward pass over two tokens, of weight zero."""
    return row_logprobs(engine, [Row(group.prompt_ids[:1], group.completions[0][:1])]).sum() * 0.0


def _over_workers(engine: DeepSpeedEngine, values: "torch.Tensor") -> "torch.Tensor":
    import torch

    total = values.to(engine.device)
    torch.distributed.all_reduce(total)
    return total.cpu()
