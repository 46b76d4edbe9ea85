"""Train the next policy on preference pairs."""

import json
import shutil
from collections.abc import Sequence
from typing import Any

from alignment.config import Train
from alignment.execution import Engine, Trainer
from alignment.packing import TrainingGroup, training_groups
from alignment.types import Artifact, Group, PreferencePair, SequenceLogprobs, TokenLogprobs, seed_of
from infra import artifacts, kept_checkpoints
from infra.attempts import alone, new_attempt
from infra.launch import TrainResult, run_training
from infra.ray_pool import open_ray
from infra.train_data import StepMetrics
from infra.tree_cache import cache_folder
from tasks import console
from tasks.batches import Batch, Reference
from tasks.steps import Place, find_step, made, making, step_task


@step_task("train")
def train(
    policy: Artifact,
    reference: Artifact,
    batches: Sequence[Batch],
    references: Sequence[Reference],
    how: Train,
    *,
    seed: tuple[int, int],
    on: Trainer,
    engine: Engine,
    at: Place,
) -> Artifact:
    """The policy trained on the pairs of ``batches``, each with its log-probabilities under the reference.

    Checkpoints lie in this machine's cache under the step's recipe, and the last one in the store, so a job that was
    killed goes on from them, here or on another machine.
    """
    inputs = {
        "policy": policy,
        "reference": reference,
        "pairs": [b.pairs for b in batches],
        "groups": [b.groups for b in batches],
        "references": [r.sums for r in references],
        "train": how,
        "seed": seed,
    }
    more = [a for r in references for a in (r.tokens, r.second) if a is not None]
    if more:
        inputs["more_references"] = more
    asked, recipe = artifacts.asked("policy", **inputs), artifacts.recipe_of("policy", **inputs)
    if done := find_step(at, "train", "policy", recipe):
        return done

    scratch = cache_folder() / "training" / recipe
    with making(at, "train") as watch, alone(scratch, timeout=on.timeout, what=f"training {recipe[:12]}"):
        if done := find_step(at, "train", "policy", recipe):  # by whoever worked on it until now
            return done
        groups = [g for batch, rows in zip(batches, references, strict=True) for g in _training_groups(batch, rows)]
        job = new_attempt(scratch)
        kept_checkpoints.fetch(at.store, recipe, job)
        with (
            console.progress(f"{at.folder} train", None) as advance,
            kept_checkpoints.Keeper(at.store, recipe, job) as keeper,
        ):

            def on_step(step: StepMetrics) -> None:
                advance(step.step + 1, f"of {step.steps}, loss {step.loss:.4f}, accuracy {step.accuracy:.2f}")
                keeper.look()

            open_ray(engine)
            out = job / "out"
            result = run_training(
                artifacts.fetch_tree(policy),
                groups,
                train=how,
                trainer=on,
                seed=seed_of(*seed, "train"),
                out=out,
                scratch=job,
                recipe=recipe,
                on_step=on_step,
            )
        (out / "train_log.json").write_text(json.dumps([step.model_dump(exclude={"seconds"}) for step in result.steps]))
        artifact = artifacts.commit_tree(
            at.store,
            "policy",
            recipe,
            out,
            parents=[policy, reference, *(b.pairs for b in batches), *more],
            facts=_facts(result, watch.seconds),
            asked=asked,
        )
        shutil.rmtree(scratch)
        kept_checkpoints.forget(at.store, recipe)
        return made(at, "train", artifact, watch)


def _training_groups(batch: Batch, reference: Reference) -> list[TrainingGroup]:
    return training_groups(
        list(artifacts.read_rows(batch.groups, Group)),
        list(artifacts.read_rows(batch.pairs, PreferencePair)),
        list(artifacts.read_rows(reference.sums, SequenceLogprobs)),
        tokens=None if reference.tokens is None else list(artifacts.read_rows(reference.tokens, TokenLogprobs)),
        second=None if reference.second is None else list(artifacts.read_rows(reference.second, SequenceLogprobs)),
    )


def _facts(result: TrainResult, seconds: float) -> dict[str, Any]:
    return {
        "steps": len(result.steps),
        "first_loss": result.steps[0].loss,
        "last_loss": result.steps[-1].loss,
        "pairs_per_step": result.steps[0].pairs,
        "tokens": sum(step.tokens for step in result.steps),
        "resumed_from": result.resumed_from,
        "engine_seconds": seconds,
        "phases": dict(result.phases),
        "probes": {name: probe.model_dump(mode="json") for name, probe in result.probes.items()},
    }
