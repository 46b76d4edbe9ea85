"""Rewards of completions, by every judge."""

from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue

from alignment.execution import Engine
from alignment.types import Artifact, Dropped, Group
from infra import artifacts
from infra.artifacts import Shard
from infra.engines import open_scorers
from infra.scoring import Scorers
from tasks import console
from tasks.judges import Judge, sources_of
from tasks.steps import Place, find_step, made, making, step_task


@step_task("score")
def score(
    completions: Artifact, judges: Sequence[Judge], policy: Artifact, *, on: Engine, at: Place, step: str = "score"
) -> Artifact:
    """Groups with rewards. Shards that were scored while sampling went on are found.

    ``policy`` is whose tokenizer wrote the completions' ids; the completions' own recipe bears its identity.
    """
    recipe = score_recipe(completions.recipe, judges)
    if done := find_step(at, step, "groups", recipe):
        return done

    with making(at, step) as watch:
        parts = _shards(completions)
        found = {i: s for i in parts if (s := artifacts.find_shard(at.store, "groups", recipe, i)) is not None}
        missing = [i for i in parts if i not in found]
        if missing:
            with (
                open_scorers(on, sources_of(judges), policy=policy, seed=(recipe,)) as scorers,
                console.progress(f"{at.folder} {step}", len(missing)) as advance,
            ):
                for done_count, i in enumerate(missing, start=1):
                    groups = artifacts.read_shard(at.store, "completions", completions.recipe, parts[i], Group)
                    found[i] = score_shard(at.store, recipe, i, groups, scorers)
                    advance(done_count)
        shards = [found[i] for i in sorted(found)]
        artifact = artifacts.commit_shards(
            at.store,
            "groups",
            recipe,
            shards,
            parents=[completions, *(m for j in judges for m in j.artifacts)],
            facts=_facts(at, recipe, shards) | {"shards_found": len(parts) - len(missing), "shards_made": len(missing)},
            asked=_asked(completions.recipe, judges),
        )
        return made(at, step, artifact, watch)


def _shards(completions: Artifact) -> dict[int, Shard]:
    count = len(artifacts.record_of(completions).files)
    found = {
        i: artifacts.find_shard(artifacts.store_of(completions), "completions", completions.recipe, i)
        for i in range(count)
    }
    return {i: shard for i, shard in found.items() if shard is not None}


def score_recipe(completions_recipe: str, judges: Sequence[Judge]) -> str:
    """Known before the completions are whole, so that their shards are scored as they come."""
    return artifacts.recipe_of("groups", **_inputs(completions_recipe, judges))


def score_shard(store: str, recipe: str, index: int, groups: Sequence[Group], scorers: Scorers) -> Shard:
    """Score one shard and commit it, with the probes that held by then."""
    scored = scorers.score(groups)
    probes: dict[str, JsonValue] = {name: probe.model_dump(mode="json") for name, probe in scorers.probes.items()}
    return artifacts.commit_shard(store, "groups", recipe, index, scored, Group, facts={"probes": probes})


def _inputs(completions_recipe: str, judges: Sequence[Judge]) -> dict[str, Any]:
    return {"completions": completions_recipe, "judges": [judge.identity for judge in judges]}


def _asked(completions_recipe: str, judges: Sequence[Judge]) -> dict[str, Any]:
    return artifacts.asked("groups", **_inputs(completions_recipe, judges))


def _facts(at: Place, recipe: str, shards: Sequence[Shard]) -> dict[str, Any]:
    groups = [g for shard in shards for g in artifacts.read_shard(at.store, "groups", recipe, shard, Group)]
    failed = [
        Dropped(step="score", item=f"{f.prompt_id}:{f.candidate}", reason=f"{f.model}: {f.reason}")
        for g in groups
        for f in g.failures
        if f.model is not None
    ]
    probes: dict[str, Any] = {}
    for shard in shards:
        if isinstance(held := shard.facts.get("probes"), dict):
            probes |= held
    return {"dropped": [d.model_dump() for d in failed], "probes": probes}
