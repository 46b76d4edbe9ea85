"""DeepSpeed, opened: the process group, the configuration and the engine around a policy."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from alignment.config import Train
from alignment.execution import Trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BUCKET = 500_000_000
"""DeepSpeed's default, which it allocates and zeroes whole: 2 GiB, and ten seconds, for the smallest model."""
DeepSpeedEngine = Any
"""``deepspeed.DeepSpeedEngine``, whose own annotations contradict its use."""


class Gang(NamedTuple):
    """Which of the workers this process is."""

    rank: int
    size: int


def join_gang(trainer: Trainer, *, timeout: float) -> Gang:
    """Meet the other workers of this Ray Train job in one torch process group. A collective that takes longer than
    ``timeout`` seconds raises."""
    import ray
    import ray.train
    import torch
    from ray.train.collective import broadcast_from_rank_zero
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    host: str = ray.util.get_node_ip_address()
    # port 0: the system chooses a free one, and nobody else can take it in between
    store = TCPStore(host, 0, size, is_master=True, wait_for_workers=False) if rank == 0 else None
    host, port = cast("tuple[str, int]", broadcast_from_rank_zero((host, store.port) if store else None))
    store = store or TCPStore(host, port, size, is_master=False)
    os.environ |= {
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_SIZE": str(context.get_local_world_size()),
    }
    if trainer.gpu:
        torch.cuda.set_device(context.get_local_rank())
    torch.distributed.init_process_group(
        "nccl" if trainer.gpu else "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout)
    )
    return Gang(rank, size)


def set_arithmetic(trainer: Trainer, seed: int) -> None:
    """Threads, seeds and, on a CPU, kernels that repeat bit for bit."""
    import torch

    torch.manual_seed(seed)
    if not trainer.gpu:
        torch.set_num_threads(trainer.threads)
        torch.use_deterministic_algorithms(True)


def deepspeed_config(train: Train, trainer: Trainer, *, accumulation: int, weights: int) -> dict[str, Any]:
    """DeepSpeed's configuration, with ``accumulation`` forward passes to an optimiser step of a model with so many
    ``weights``.

    In bf16, stage 0 runs as stage 1: DeepSpeed accumulates bf16 gradients in float32 only where it keeps the float32
    weights itself.
    """
    bf16 = train.precision == "bf16"
    zero: dict[str, Any] = {
        "stage": max(1, trainer.zero_stage) if bf16 else trainer.zero_stage,
        "contiguous_gradients": True,  # without it, stages 1 and 2 can skip the reduction
        "overlap_comm": trainer.gpu,
        "reduce_bucket_size": min(weights, BUCKET),
        "allgather_bucket_size": min(weights, BUCKET),
        "stage3_param_persistence_threshold": 10_000,
    }
    if trainer.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": trainer.gpu}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": train.max_grad_norm,
        "zero_optimization": zero,
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,  # torch's AdamW: DeepSpeed's own would be compiled at first use
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
    }


def load_model(folder: Path, train: Train, **how: Any) -> "PreTrainedModel":
    """The policy in the precision it is trained in, with its adapters where it has some."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
    safely: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **safely, **how)
    if train.lora is None:
        return model
    from peft import LoraConfig, get_peft_model  # ten seconds, which only adapters are worth

    adapters: dict[str, Any] = {"r": train.lora.rank, "lora_alpha": train.lora.alpha, "target_modules": "all-linear"}
    lora = LoraConfig(task_type="CAUSAL_LM", **adapters)
    return cast("PreTrainedModel", get_peft_model(model, lora, autocast_adapter_dtype=False))


def without_dropout(folder: Path) -> Mapping[str, float]:
    """Overrides that turn a policy's dropout off: its log-probabilities must be those that the reference's are."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    named = {key: value for key, value in config.items() if "dropout" in key or key.endswith("pdrop")}
    return {key: 0.0 for key, value in named.items() if isinstance(value, float) and value > 0}


def open_engine(model: "PreTrainedModel", train: Train, trainer: Trainer, *, accumulation: int) -> DeepSpeedEngine:
    import deepspeed
    import torch
    from deepspeed.utils import logger

    logger.setLevel("WARNING")
    # DeepSpeed would compile a shared-memory reduction at its first start on every machine: a minute, and a lock
    # left behind when it is killed meanwhile stops the next one for good
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if trainer.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if train.lora is not None:
            model.enable_input_require_grads()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=train.learning_rate, weight_decay=train.weight_decay)
    weights = sum(p.numel() for p in model.parameters())
    config = deepspeed_config(train, trainer, accumulation=accumulation, weights=weights)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.train()
    return engine


def step_engine(engine: DeepSpeedEngine) -> float:
    """Count one backward pass and, after a step's last one, update the weights; return the norm of the step's gradient
    before clipping, which is meaningless until then. At stage 0 DeepSpeed keeps none, so it is computed here."""
    import torch

    if engine.zero_optimization_stage() > 0 or not engine.is_gradient_accumulation_boundary():
        engine.step()
        return float(engine.get_global_grad_norm() or 0.0)
    norm = torch.nn.utils.get_total_norm([p.grad for p in engine.module.parameters() if p.grad is not None])
    engine.step()
    return float(norm)
