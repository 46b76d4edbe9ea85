"""Pairs under the goals that their scores stand for, and prompts at the goal that a policy is served at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.relabeling import Relabel, Relabelled
from alignment.rendering import load_tokenizer, render
from alignment.score_maps import ScoreMap
from alignment.types import Artifact, Group, Message, PreferencePair, Prompt
from infra import artifacts
from infra.model_folder import context_length
from tasks.batches import Batch
from tasks.inputs import Inputs
from tasks.steps import Place, find_step, made, making, step_task

Ids = tuple[int, ...]


@step_task("relabel")
def relabel(batch: Batch, how: Relabel, policy: Artifact, anchor: Artifact, *, at: Place) -> Batch:
    """The batch's pairs under goals, each goal a prompt and so a group of its own.

    ``policy`` is whose chat template says the goal. ``anchor``, the initial policy's scored held-out answers, fits
    the score map where none is given: it is the same in every round, so that a goal keeps its meaning.
    """
    inputs: dict[str, Any] = {"groups": batch.groups, "pairs": batch.pairs, "relabel": how, "policy": policy}
    if not isinstance(how.scale, ScoreMap):
        inputs["anchor"] = anchor
    groups_recipe, recipe = artifacts.recipe_of("groups", **inputs), artifacts.recipe_of("pairs", **inputs)
    groups_done = find_step(at, "relabel-groups", "groups", groups_recipe)
    pairs_done = find_step(at, "relabel", "pairs", recipe)
    if groups_done and pairs_done:
        return Batch(name=batch.name, groups=groups_done, pairs=pairs_done)

    with making(at, "relabel") as watch:
        scale, folder = _score_map(how, anchor), artifacts.fetch_tree(policy)
        ids_of = _rendering(folder, how)
        _require_told_apart(how, ids_of)
        relabelled = how(
            list(artifacts.read_rows(batch.groups, Group)),
            list(artifacts.read_rows(batch.pairs, PreferencePair)),
            scale,
            ids_of,
            reward="reward",
            context=context_length(folder),
        )
        _require_pairs(relabelled, at)
        groups = artifacts.commit_rows(
            at.store,
            "groups",
            groups_recipe,
            relabelled.groups,
            Group,
            parents=[batch.groups, batch.pairs],
            asked=artifacts.asked("groups", **inputs),
        )
        facts = {
            "pairs": len(relabelled.pairs),
            "dropped": [d.model_dump() for d in relabelled.dropped],
            "metrics": relabelled.metrics,
            "score_map": scale.model_dump(mode="json") | {"version": scale.version},
        }
        pairs = artifacts.commit_rows(
            at.store,
            "pairs",
            recipe,
            relabelled.pairs,
            PreferencePair,
            parents=[groups, batch.pairs],
            facts=facts,
            asked=artifacts.asked("pairs", **inputs),
        )
        made(at, "relabel-groups", groups, watch)
        return Batch(name=batch.name, groups=groups, pairs=made(at, "relabel", pairs, watch))


@step_task("serve")
def served_at_goal(inputs: Inputs, how: Relabel, policy: Artifact, *, at: Place) -> Inputs:
    """The run's prompts as its trained policies are asked: at the serving goal. Without it they are undefined."""
    return inputs.model_copy(
        update={
            "prompts": _prompts_at_goal(inputs.prompts, how, "prompts-at-goal", at),
            "held_out": _prompts_at_goal(inputs.held_out, how, "held-out-at-goal", at),
            "held_out_pairs": inputs.held_out_pairs and _pairs_at_goal(inputs.held_out_pairs, how, policy, at),
        }
    )


def _prompts_at_goal(prompts: Artifact, how: Relabel, step: str, at: Place) -> Artifact:
    inputs = {"prompts": prompts, "goal": how.serving}
    recipe = artifacts.recipe_of("prompts", **inputs)
    if done := find_step(at, step, "prompts", recipe):
        return done

    with making(at, step) as watch:
        rows = [prompt.at_goal(how.serving) for prompt in artifacts.read_rows(prompts, Prompt)]
        asked = artifacts.asked("prompts", **inputs)
        artifact = artifacts.commit_rows(at.store, "prompts", recipe, rows, Prompt, parents=[prompts], asked=asked)
        return made(at, step, artifact, watch)


def _pairs_at_goal(batch: Batch, how: Relabel, policy: Artifact, at: Place) -> Batch:
    """Held-out pairs as they are labelled, under the serving goal: nothing is swapped there."""
    inputs = {"groups": batch.groups, "pairs": batch.pairs, "goal": how.serving, "policy": policy}
    groups_recipe, recipe = artifacts.recipe_of("groups", **inputs), artifacts.recipe_of("pairs", **inputs)
    groups_done = find_step(at, "held-out-pairs-at-goal-groups", "groups", groups_recipe)
    pairs_done = find_step(at, "held-out-pairs-at-goal", "pairs", recipe)
    if groups_done and pairs_done:
        return Batch(name=batch.name, groups=groups_done, pairs=pairs_done)

    with making(at, "held-out-pairs-at-goal") as watch:
        ids_of = _rendering(artifacts.fetch_tree(policy), how)
        served = {g.prompt.id: (g, g.prompt.at_goal(how.serving)) for g in artifacts.read_rows(batch.groups, Group)}
        groups = [
            g.model_copy(update={"prompt": prompt, "prompt_ids": ids_of(prompt)}) for g, prompt in served.values()
        ]
        pairs = [
            pair.model_copy(update={"prompt_id": served[pair.prompt_id][1].id, "condition": how.serving.text})
            for pair in artifacts.read_rows(batch.pairs, PreferencePair)
        ]
        stored = artifacts.commit_rows(
            at.store, "groups", groups_recipe, groups, Group, parents=[batch.groups],
            asked=artifacts.asked("groups", **inputs),
        )  # fmt: skip
        artifact = artifacts.commit_rows(
            at.store, "pairs", recipe, pairs, PreferencePair, parents=[stored, batch.pairs],
            asked=artifacts.asked("pairs", **inputs),
        )  # fmt: skip
        made(at, "held-out-pairs-at-goal-groups", stored, watch)
        return Batch(name=batch.name, groups=stored, pairs=made(at, "held-out-pairs-at-goal", artifact, watch))


def _score_map(how: Relabel, anchor: Artifact) -> ScoreMap:
    if isinstance(how.scale, ScoreMap):
        return how.scale
    groups = artifacts.read_rows(anchor, Group)
    return how.fitted([r for group in groups for r in group.rewards.get("reward", ()) if r is not None])


def _rendering(folder: Path, how: Relabel) -> Callable[[Prompt], Ids]:
    tokenizer = load_tokenizer(folder)

    def ids_of(prompt: Prompt) -> Ids:
        try:
            return render(tokenizer, prompt)
        except UserError as error:
            if how.placement == "user":
                raise
            raise UserError(f"{error}; a goal needs no system's turn with relabel.placement = 'user'") from error

    return ids_of


def _require_told_apart(how: Relabel, ids_of: Callable[[Prompt], Ids]) -> None:
    """Goals that a closed vocabulary cannot say are one token to the policy: it would train on two opposite labels."""
    lowest, highest = how.ends
    goals = [how.goal(lowest + k) for k in range(int(highest - lowest) + 1)]
    asked = Prompt.of((Message(role="user", content="?"),))
    if len({ids_of(asked.at_goal(goal)) for goal in goals}) < len(goals):
        raise UserError(
            f"relabel.text: the policy's tokenizer gives goals from {goals[0].text!r} to {goals[-1].text!r} the same "
            "tokens, so it could not tell them apart; say them in words that its vocabulary has, with relabel.words"
        )


def _require_pairs(relabelled: Relabelled, at: Place) -> None:
    if not relabelled.pairs:
        reasons = "; ".join(sorted({d.reason for d in relabelled.dropped}))
        raise UserError(
            f"{at.folder}: relabelling left no pair of {len(relabelled.dropped)} ({reasons}); widen relabel.scale or "
            "lower relabel.min_gap"
        )
