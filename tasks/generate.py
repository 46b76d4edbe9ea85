"""Completions of the current policy, scored while sampling goes on."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

from alignment.execution import Engine
from alignment.sampling import Sampler, generations
from alignment.types import Artifact, Dropped, Group, Prompt
from infra import artifacts
from infra.artifacts import Shard
from infra.engines import open_samplers, open_scorers
from tasks import console
from tasks.judges import Judge, sources_of
from tasks.score import score_recipe, score_shard
from tasks.steps import Place, find_step, made, making, step_task

Seed = tuple[int | str, ...]


@step_task("generate")
def generate(
    policy: Artifact,
    prompts: Artifact,
    sampler: Sampler,
    judges: Sequence[Judge],
    *,
    seed: Seed,
    on: Engine,
    at: Place,
    step: str = "generate",
) -> Artifact:
    """Groups of completions without rewards, committed shard by shard; each finished shard goes on to the judges.

    Their scores are committed under the ``score`` step's own recipe, which finds them there.
    """
    inputs = {"policy": policy, "prompts": prompts, "sampler": sampler, "seed": seed}
    if sampler.reads_rewards:
        inputs["judges"] = [judge.identity for judge in judges]
    asked, recipe = artifacts.asked("completions", **inputs), artifacts.recipe_of("completions", **inputs)
    if done := find_step(at, step, "completions", recipe):
        return done

    with making(at, step) as watch:
        parts = _parts(list(artifacts.read_rows(prompts, Prompt)), on.shard_prompts)
        found = {i: s for i in parts if (s := artifacts.find_shard(at.store, "completions", recipe, i)) is not None}
        missing = {i: part for i, part in parts.items() if i not in found}
        probes: dict[str, Any] = {}
        if missing:
            fresh, probes = _sample(policy, missing, sampler, judges, recipe=recipe, seed=seed, on=on, at=at, step=step)
            found |= fresh
        shards = [found[i] for i in sorted(found)]
        facts = _facts(at, recipe, shards) | {
            "shards_found": len(parts) - len(missing),
            "shards_made": len(missing),
            "engine_seconds": watch.seconds,
            "probes": probes,
        }
        artifact = artifacts.commit_shards(
            at.store, "completions", recipe, shards, parents=[policy, prompts], facts=facts, asked=asked
        )
        return made(at, step, artifact, watch)


def _parts(prompts: Sequence[Prompt], size: int) -> dict[int, Sequence[Prompt]]:
    starts = range(0, len(prompts), size)
    return {i: prompts[start : start + size] for i, start in enumerate(starts)}


def _sample(
    policy: Artifact,
    parts: dict[int, Sequence[Prompt]],
    sampler: Sampler,
    judges: Sequence[Judge],
    *,
    recipe: str,
    seed: Seed,
    on: Engine,
    at: Place,
    step: str,
) -> tuple[dict[int, Shard], dict[str, Any]]:
    """Sample the parts over all replicas; the scorers' one thread follows behind with what is done."""
    scored = score_recipe(recipe, judges)
    total = sum(len(part) for part in parts.values())
    with (
        open_samplers(on, policy) as samplers,
        open_scorers(on, sources_of(judges), policy=policy, seed=(scored,)) as scorers,
        ThreadPoolExecutor(on.replicas, "sampling") as sampling,
        ThreadPoolExecutor(1, "scoring") as scoring,
        console.progress(f"{at.folder} {step}", total) as advance,
    ):

        def draw(index: int, part: Sequence[Prompt]) -> Shard:
            drawn = sampler(part, samplers, scorers, seed=seed)
            groups = samplers.assembled(part, drawn)
            spent = {"tokens": sum(one.tokens for one in drawn)}
            return artifacts.commit_shard(at.store, "completions", recipe, index, groups, Group, facts=spent)

        def rate(index: int, shard: Shard) -> Shard:
            groups = artifacts.read_shard(at.store, "completions", recipe, shard, Group)
            return score_shard(at.store, scored, index, groups, scorers)

        drawn = {sampling.submit(draw, index, part): index for index, part in parts.items()}
        rated: list[Future[Shard]] = []
        shards: dict[int, Shard] = {}
        for future in as_completed(drawn):
            index = drawn[future]
            shards[index] = _or_stop(future, drawn)
            if judges:
                rated.append(scoring.submit(rate, index, shards[index]))
            advance(sum(shard.rows for shard in shards.values()))
        for future in rated:
            future.result()
        probes: dict[str, Any] = {p.name: p.model_dump(mode="json") for p in samplers.probes}
    return shards, probes


def _or_stop(future: Future[Shard], others: dict[Future[Shard], int]) -> Shard:
    """Its shard; after an error, those that have not begun are not begun."""
    try:
        return future.result()
    except BaseException:
        for other in others:
            other.cancel()
        raise


def _facts(at: Place, recipe: str, shards: Sequence[Shard]) -> dict[str, Any]:
    """Counts over all shards, found or made."""
    groups = [g for shard in shards for g in artifacts.read_shard(at.store, "completions", recipe, shard, Group)]
    refused = [
        Dropped(step="generate", item=f.prompt_id, reason=f.reason)
        for g in groups
        for f in g.failures
        if not g.candidates
    ]
    return {
        "prompts": len(groups),
        "completions": sum(len(g.candidates) for g in groups),
        "tokens": sum(_tokens(shard, at, recipe) for shard in shards),
        "dropped": [d.model_dump() for d in refused],
        "fallbacks": dict(Counter(f.reason for g in groups if g.candidates for f in g.failures)),
        "generations": [generation._asdict() for generation in generations(groups)],
    }


def _tokens(shard: Shard, at: Place, recipe: str) -> int:
    """Sampled for a shard, feedback and what was set aside included."""
    spent = shard.facts.get("tokens")
    if isinstance(spent, int):
        return spent
    # a shard from before this was noted: then nothing was sampled but what is stored
    groups = artifacts.read_shard(at.store, "completions", recipe, shard, Group)
    return sum(len(c.token_ids) for g in groups for c in g.candidates)
