"""How a run is carried out on machines. None of it bears identity: work done otherwise is found."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from alignment.types import Strategy


class Trainer(Strategy):
    """DeepSpeed under Ray Train: how the update is run, which does not bear identity."""

    type: Literal["deepspeed"] = "deepspeed"
    workers: PositiveInt = 1
    zero_stage: Literal[0, 1, 2, 3] = 0
    """In bf16, 0 runs as 1: DeepSpeed keeps float32 weights beside bf16 ones only from there on."""
    offload: bool = False
    gradient_checkpointing: bool = False
    gpu: bool = False
    threads: PositiveInt = 2
    """CPU threads per worker, when there is no GPU."""
    tokens_per_pass: PositiveInt = 4096
    """Positions of one forward and backward pass, padding included: memory against speed. Groups are not split, so a
    larger one passes alone."""
    checkpoint_steps: PositiveInt = 50
    timeout: PositiveFloat = 3600.0


class Engine(Strategy):
    """Samplers and reward models as Ray actors: how they are run, which does not bear identity."""

    replicas: PositiveInt = 1
    """Samplers, and without a GPU as many processes for rewards and log-probabilities. Much of a sampler's work is one
    thread's: two samplers of one thread drew 4,900 tokens/s where one of two drew 2,700 (two cores, 1.1 M weights)."""
    tensor_parallel: PositiveInt = 1
    gpu: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: PositiveInt = 2
    """CPU threads per process."""
    kv_cache_gib: PositiveInt = 1
    shard_prompts: PositiveInt = 64
    """Prompts per shard: the most work a crash can lose."""
    batch_size: PositiveInt = 32
    """Sequences per forward pass of reward models and log-probabilities."""
    keep_warm: bool = False
    """Keep sampler processes between phases and reload weights in place, held to the weight probe."""
    address: str | None = None
    """Ray cluster; None starts one on this machine."""
    timeout: PositiveFloat = 900.0
    """Seconds any single wait may last before it fails with a diagnosis."""
