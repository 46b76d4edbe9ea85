"""What tasks use: policies, reward models and log-probabilities, opened for a phase and given back after it."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from alignment.execution import Engine
from infra import ray_pool, training_workers
from infra.reward_models import RewardSource
from infra.samplers import Samplers
from infra.scoring import Scorers
from infra.training_stack import TrainingStack
from infra.weights import Model, check_head_size, folder_of, shape_of

_sharing = threading.Lock()
_stacks: dict[str, TrainingStack] = {}
_users: Counter[str] = Counter()
_warm: dict[str, Samplers] = {}


@contextmanager
def open_training_stack(engine: Engine) -> Iterator[TrainingStack]:
    """The training stack's process. In a CPU cluster of this run's own it stays for the next phase, elsewhere it goes
    with its last user, unless ``keep_warm``."""
    ray_pool.open_ray(engine)
    key = _placement(engine)
    with _sharing:
        if key not in _stacks:
            _stacks[key] = TrainingStack(engine)
        stack = _stacks[key]
        _users[key] += 1
    try:
        yield stack
    finally:
        stays = engine.keep_warm or (ray_pool.own_cluster() and not engine.gpu)
        with _sharing:
            _users[key] -= 1
            if not stays and not _users[key]:
                _stacks.pop(key).close()


@contextmanager
def open_samplers(engine: Engine, model: Model) -> Iterator[Samplers]:
    """A policy to sample from. Its processes are ended afterwards, unless ``keep_warm`` keeps them for the next policy
    of the same shape."""
    folder = folder_of(model)
    check_head_size(folder, engine)
    ray_pool.open_ray(engine)
    key, kept = _placement(engine), False
    with open_training_stack(engine) as stack:
        samplers = _warm.pop(key, None)
        if samplers and samplers.shape != shape_of(folder):
            samplers.close()
            samplers = None
        samplers = samplers or Samplers(engine, stack)
        try:
            samplers.load(model, stack)
            yield samplers
            kept = engine.keep_warm
        finally:
            if kept:
                _warm[key] = samplers
            else:
                samplers.close()


@contextmanager
def open_scorers(
    engine: Engine,
    rewards: Mapping[str, RewardSource],
    *,
    policy: Model | None = None,
    seed: tuple[int | str, ...] = (),
) -> Iterator[Scorers]:
    """Reward models by name. ``policy`` is the model whose tokenizer wrote the groups' token ids; ``seed`` draws the
    baselines of pairwise rewards. Verifiers run in this process, the others in the training stack's."""
    opened = [of for source in rewards.values() for of in (source, *source.members.values())]
    if all(source.config.type in ("verifier", "ensemble") for source in opened):
        yield Scorers(None, rewards, policy=None, seed=seed)
        return
    with open_training_stack(engine) as stack:
        yield Scorers(stack, rewards, policy=policy and folder_of(policy), seed=seed)


def release() -> None:
    """End every process kept warm."""
    training_workers.release()
    with _sharing:
        for kept in (*_warm.values(), *_stacks.values()):
            kept.close()
        _warm.clear()
        _stacks.clear()
        _users.clear()


def _placement(engine: Engine) -> str:
    return engine.model_dump_json(exclude={"shard_prompts", "keep_warm"})
