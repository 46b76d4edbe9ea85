"""Checkpoints of a training job, for workers that fail within it. Optimizer state does not outlive the job.

One folder per step: the trained weights, whole, and each worker's part of the float32 weights and of Adam's moments.
All are safetensors, so a restart reads no pickle; they fit only the same job on equally many workers.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from alignment.types import Record
from infra.train_data import TrainJob, write_record
from infra.train_engine import DeepSpeedEngine, Gang
from infra.train_export import gathered

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class _Mark(Record):
    """Written last: a checkpoint without it is not one."""

    recipe: str
    workers: int
    zero_stage: int
    offload: bool
    step: int


def _mark(job: TrainJob, step: int) -> _Mark:
    how = job.trainer
    return _Mark(recipe=job.recipe, workers=how.workers, zero_stage=how.zero_stage, offload=how.offload, step=step)


class Checkpoint(NamedTuple):
    folder: Path
    step: int
    """Optimiser steps that went into it."""

    def resume(self, engine: DeepSpeedEngine, gang: Gang) -> int:
        """Put this worker's optimizer where it was; return the step to go on with."""
        import torch
        from safetensors.torch import load_file

        saved = load_file(self.folder / f"rank-{gang.rank}.safetensors")
        optimizer = engine.basic_optimizer
        with torch.no_grad():
            for key, parameter in _parts(engine):
                parameter.copy_(saved[f"{key}.weight"])
                optimizer.state[parameter] = {m: saved[f"{key}.{m}"].to(_place(m, parameter)) for m in MOMENTS}
        return self.step


def resumable(scratch: Path, job: TrainJob) -> Checkpoint | None:
    """The last whole checkpoint of this very job, if it left one; others stay until its first one replaces them."""
    fitting = [c for c in _whole(scratch) if _marked(c.folder) == _mark(job, c.step)]
    return max(fitting, key=lambda checkpoint: checkpoint.step, default=None)


def newest(scratch: Path) -> Checkpoint | None:
    """The last whole checkpoint in a job's folder, whatever job left it."""
    return max(_whole(scratch), key=lambda checkpoint: checkpoint.step, default=None)


def _whole(scratch: Path) -> list[Checkpoint]:
    folders = [(folder, int(folder.name.removeprefix("checkpoint-"))) for folder in scratch.glob("checkpoint-*")]
    return [Checkpoint(folder, step) for folder, step in folders if _marked(folder) is not None]


def restore(model: "PreTrainedModel", checkpoint: Checkpoint | None) -> "PreTrainedModel":
    """The model with the checkpoint's weights in it, before an engine takes them."""
    import torch
    from safetensors.torch import load_file

    if checkpoint is not None:
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in load_file(checkpoint.folder / "weights.safetensors").items():
                parameters[name].copy_(value)
    return model


def save_checkpoint(engine: DeepSpeedEngine, scratch: Path, job: TrainJob, gang: Gang, *, step: int) -> None:
    """Write a checkpoint and remove the one before. A collective of all workers."""
    import torch
    from safetensors.torch import save_file

    folder = scratch / f"checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    save_file(dict(_own_state(engine)), folder / f"rank-{gang.rank}.safetensors")
    weights = {name: value.cpu().clone() for name, value in gathered(engine, trained_only=True)}
    if gang.rank == 0:
        save_file(weights, folder / "weights.safetensors")
    torch.distributed.barrier()
    if gang.rank == 0:
        write_record(folder / "mark.json", _mark(job, step))
        for older in scratch.glob("checkpoint-*"):
            if older != folder:
                shutil.rmtree(older)


def _parts(engine: DeepSpeedEngine) -> "Iterator[tuple[str, Tensor]]":
    """What this worker's optimizer updates: whole parameters at stage 0, flat float32 partitions above."""
    if engine.zero_optimization_stage() == 3:  # whose optimizer is handed its partitions only while it steps
        groups: list[list[Tensor]] = [engine.optimizer.fp32_partitioned_groups_flat]
    else:
        groups = [settings["params"] for settings in engine.basic_optimizer.param_groups]
    for i, parameters in enumerate(groups):
        for j, parameter in enumerate(parameters):
            yield f"{i}.{j}", parameter


def _own_state(engine: DeepSpeedEngine) -> "Iterator[tuple[str, Tensor]]":
    for key, parameter in _parts(engine):
        yield f"{key}.weight", parameter.detach().cpu().clone()
        for moment in MOMENTS:
            yield f"{key}.{moment}", engine.basic_optimizer.state[parameter][moment].detach().cpu().clone()


def _place(moment: str, parameter: "Tensor") -> str:
    return "cpu" if moment == "step" else str(parameter.device)  # AdamW counts steps on the CPU


def _marked(folder: Path) -> _Mark | None:
    mark = folder / "mark.json"
    return _Mark.model_validate_json(mark.read_text()) if os.path.exists(mark) else None
