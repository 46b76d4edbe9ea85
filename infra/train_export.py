"""Weights out of a training engine, whatever its ZeRO stage, and proof that they are the ones that were trained."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.errors import UserError
from alignment.logprobs import CausalModel, Row, row_logprobs
from alignment.packing import TrainingGroup
from infra.train_data import ReloadProbe, TrainJob
from infra.train_engine import DeepSpeedEngine, Gang, load_model

if TYPE_CHECKING:
    from torch import Tensor

NOT_COPIED = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf")
"""Weights in other formats would be the old policy's."""
BOUNDS = {"float32": 1e-4, "bf16": 0.05}
"""Nats per token between trainer and reloaded model; merged adapters round once more. A wrong weight is off by 0.1 and
more at its worst token."""
PROBED = 8


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


def reload_gives_same_logprobs(
    engine: DeepSpeedEngine, job: TrainJob, gang: Gang, groups: Sequence[TrainingGroup]
) -> ReloadProbe | None:
    """Probe (e), on the first worker; None on the others.

    Raises UserError when a tensor is empty, missing or unknown to the model's configuration, or when the exported
    model's log-probabilities are not the trainer's.
    """
    rows = [Row(group.prompt_ids, completion) for group in groups[:PROBED] for completion in group.completions][:PROBED]
    trainer = _logprobs(engine, rows)
    if gang.rank != 0:
        return None
    reloaded = _logprobs(_reload(job.out, engine), rows)
    lengths = tuple(len(row.completion) for row in rows)
    probe = ReloadProbe(trainer=trainer, reloaded=reloaded, lengths=lengths, bound=BOUNDS[job.train.precision])
    if not probe.worst <= probe.bound:
        raise UserError(
            f"{job.out}: the exported policy gives {probe.reloaded} where the trainer gave {probe.trainer} "
            f"({probe.worst:g} nats per token apart, bound {probe.bound:g}). Nothing is committed"
        )
    return probe


def _logprobs(model: CausalModel, rows: Sequence[Row]) -> tuple[float, ...]:
    import torch

    with torch.no_grad():
        return tuple(row_logprobs(model, rows).tolist())


def _reload(folder: Path, engine: DeepSpeedEngine) -> CausalModel:
    from transformers import AutoModelForCausalLM

    _refuse_empty_tensors(folder)
    dtype = next(engine.module.parameters()).dtype
    how: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
    opened: Any = AutoModelForCausalLM.from_pretrained(folder, **how)
    model, loading = opened
    wrong = {what: sorted(map(str, loading[what])) for what in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        raise UserError(f"{folder}: the exported weights do not fit the model's configuration: {wrong}")
    return model.to(engine.device).train(engine.module.training)


def _refuse_empty_tensors(folder: Path) -> None:
    from safetensors import safe_open

    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            empty = [name for name in tensors.keys() if 0 in tensors.get_slice(name).get_shape()]  # noqa: SIM118
        if empty:
            raise UserError(f"{file}: {len(empty)} empty tensors, first {empty[0]}")
