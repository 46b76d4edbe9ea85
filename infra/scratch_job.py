"""Training from scratch in a Ray worker that commits what it made to the store itself."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import JsonValue

from alignment.execution import Engine
from alignment.models import Scratch
from alignment.probes import Probe
from alignment.types import Artifact, Group
from alignment.worlds import World
from infra import artifacts
from infra.ray_pool import cpus_for, give_back_memory, gpus_for, open_ray, own_cluster, wait, worker_env

Advance = Callable[[int, int, float], None]
Said = tuple[int, int, float] | Artifact
"""Progress, or at last what was made."""


def scratch_policy(
    store: str,
    recipe: str,
    asked: Mapping[str, JsonValue],
    world: World,
    source: Scratch,
    *,
    on: Engine,
    advance: Advance,
) -> Artifact:
    """Train a policy on the world's demonstrations; ``advance`` hears (steps done, steps in all, loss)."""
    return in_worker(_policy_job, (store, recipe, dict(asked), world, source), on, advance, "training the base policy")


def scratch_reward_model(
    store: str,
    recipe: str,
    asked: Mapping[str, JsonValue],
    world: World,
    policy: Artifact,
    labelled: Artifact | None,
    source: Scratch,
    *,
    on: Engine,
    advance: Advance,
) -> Artifact:
    """Train a reward model from the policy's weights on comparisons of the ``labelled`` completions; without them, on
    the world's own labelled pairs."""
    work = (store, recipe, dict(asked), world, policy, labelled, source)
    return in_worker(_reward_job, work, on, advance, "training the reward model")


def _policy_job(
    store: str, recipe: str, asked: Mapping[str, JsonValue], world: World, source: Scratch, out: Path, advance: Advance
) -> Artifact:
    from infra.scratch import train_policy
    from infra.worlds import open_world

    opened = open_world(world)
    tokenizer = opened.tokenizer(source.architecture.context)
    probe = train_policy(opened.demonstrations(source.examples), tokenizer, source, out, progress=advance)
    return artifacts.commit_tree(store, "policy", recipe, out, facts=_facts(probe), asked=asked)


def _reward_job(
    store: str,
    recipe: str,
    asked: Mapping[str, JsonValue],
    world: World,
    policy: Artifact,
    labelled: Artifact | None,
    source: Scratch,
    out: Path,
    advance: Advance,
) -> Artifact:
    from infra.scratch_reward import train_reward_model
    from infra.worlds import compared_pairs, open_world

    if labelled is None:
        pairs = open_world(world).labelled_pairs(source.examples)
    else:
        pairs = compared_pairs(world, artifacts.read_rows(labelled, Group), source.examples)
    probe = train_reward_model(pairs, artifacts.fetch_tree(policy), source, out, progress=advance)
    parents = [policy] if labelled is None else [policy, labelled]
    return artifacts.commit_tree(store, "reward_model", recipe, out, parents=parents, facts=_facts(probe), asked=asked)


def _facts(probe: Probe) -> dict[str, JsonValue]:
    return {"probes": {probe.name: probe.model_dump(mode="json")}}


def in_worker(
    job: Callable[..., Artifact], work: Sequence[Any], on: Engine, advance: Advance, what: str, *, gpu: bool = False
) -> Artifact:
    """Run a job in a process of its own, on a GPU where it can use one, which streams its progress and at last the
    artifact, and is ready for the next job."""
    open_ray(on)
    import ray

    # samplers of a cluster of our own are on this machine, and idle now: their threads are free
    threads = on.threads * on.replicas if own_cluster() else on.threads
    remote: Any = ray.remote(num_cpus=cpus_for(threads), max_retries=0)(_stream)
    options: dict[str, Any] = {"runtime_env": {"env_vars": worker_env(threads=threads, alone=True)}}
    if gpu:
        options["num_gpus"] = gpus_for(on, 1, 0.25)
    for ref in remote.options(**options).remote(job, work, threads):
        (said,) = wait([ref], timeout=on.timeout, what=what)
        if isinstance(said, Artifact):
            return said
        advance(*said)
    raise RuntimeError(f"{what}: ended without an artifact")


def _stream(
    job: Callable[..., Artifact], work: Sequence[Any], threads: int
) -> Iterator[tuple[int, int, float] | Artifact]:
    """Progress now and then, at last the artifact. The job runs in a thread so that its callback can be streamed."""
    import queue
    import threading

    import torch

    torch.set_num_threads(threads)
    said: queue.SimpleQueue[Said | BaseException] = queue.SimpleQueue()

    def call() -> None:
        try:
            with TemporaryDirectory() as folder:
                said.put(job(*work, Path(folder), lambda done, total, loss: said.put((done, total, loss))))
        except BaseException as error:
            said.put(error)

    threading.Thread(target=call, daemon=True).start()
    while True:
        word = said.get()
        if isinstance(word, BaseException):
            raise word
        if isinstance(word, Artifact) or word[0] % 20 == 0 or word[0] == word[1]:
            yield word
        if isinstance(word, Artifact):
            give_back_memory()  # the process stays for the next job
            return
