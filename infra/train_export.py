"""Weights out of a training engine, whatever its ZeRO stage."""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from infra.train_data import TrainJob
from infra.train_engine import DeepSpeedEngine, Gang, load_model

if TYPE_CHECKING:
    from torch import Tensor

NOT_COPIED = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf")
"""Weights in other formats would be the old policy's."""


def gathered(engine: DeepSpeedEngine, *, trained_only: bool = False) -> "Iterator[tuple[str, Tensor]]":
    """Name and full value of each parameter, one at a time; a collective of all workers under ZeRO-3."""
    from deepspeed.runtime.zero import GatheredParameters

    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad or not trained_only:
            with GatheredParameters([parameter], enabled=engine.zero_optimization_stage() == 3):
                yield name, parameter.detach()


def export(engine: DeepSpeedEngine, job: TrainJob, gang: Gang) -> None:
    """Write the policy as a transformers folder, adapters merged, in the precision it was trained in.

    The first worker writes, through a plain model of the same class: what transformers reads back is what it wrote.
    """
    import torch

    plain = load_model(job.policy, job.train) if gang.rank == 0 else None
    slots = dict(plain.named_parameters()) if plain else {}
    with torch.no_grad():
        for name, value in gathered(engine):
            if plain:
                slots.pop(name).copy_(value)
    if plain is None:
        return
    if slots:
        raise RuntimeError(f"{job.out}: the engine has no value for {sorted(slots)[:4]}")
    job.out.mkdir(parents=True, exist_ok=True)
    whole: Any = plain  # with LoRA a PEFT model, whose adapters go into the weights
    (whole if job.train.lora is None else whole.merge_and_unload()).save_pretrained(job.out)
    for file in job.policy.iterdir():
        if file.is_file() and file.name != "config.json" and not file.name.endswith(NOT_COPIED):
            shutil.copyfile(file, job.out / file.name)
