"""Answers of a policy, and the order that the world's labeller gives them: what a reward model learns from."""

from alignment.config import RunConfig
from alignment.sampling import Independent
from alignment.testbed import sandbox
from alignment.types import Artifact, Group, PreferencePair, Prompt
from alignment.worlds import Sandbox
from infra import artifacts
from infra.worlds import compared_pairs, world_identity
from tasks.generate import generate
from tasks.steps import Place, find_step, made, making, step_task


def label_samples(config: RunConfig, policy: Artifact, *, at: Place) -> Artifact | None:
    """Completions of label prompts, which no run trains or is evaluated on; None without ``config.labels``.

    Their seed is the world's and not the run's, so that runs which differ in seed share one reward model.
    """
    if config.labels is None or not isinstance(config.world, Sandbox):
        return None
    prompts = label_prompts(config.world, config.labels.prompts, at=at)
    sampler = Independent(n=config.labels.n, decoding=config.labels.decoding)
    return generate(
        policy, prompts, sampler, (), seed=("labels", config.world.seed), on=config.engine, at=at, step="label-samples"
    )


@step_task("label-prompts")
def label_prompts(world: Sandbox, count: int, *, first: int = 0, step: str = "label-prompts", at: Place) -> Artifact:
    """``count`` requests for the labeller, from number ``first`` on."""
    inputs: dict[str, object] = {"world": world_identity(world), "labels": count}
    if first:
        inputs["first"] = first
    recipe = artifacts.recipe_of("prompts", **inputs)
    if done := find_step(at, step, "prompts", recipe):
        return done
    with making(at, step) as watch:
        rows = sandbox.label_prompts(world, first + count)[first:]
        asked = artifacts.asked("prompts", **inputs)
        artifact = artifacts.commit_rows(
            at.store, "prompts", recipe, rows, Prompt, facts={"prompts": len(rows)}, asked=asked
        )
        return made(at, step, artifact, watch)


def world_labels(samples: Artifact, world: Sandbox, count: int | None, *, step: str, at: Place) -> Artifact:
    """``count`` pairs of the samples' completions as the world's noisy labeller orders them, in the groups' order; None
    takes all. UserError where the samples give fewer.
    """
    inputs = {"groups": samples, "world": world_identity(world), "count": count}
    recipe = artifacts.recipe_of("pairs", **inputs)
    if done := find_step(at, step, "pairs", recipe):
        return done
    with making(at, step) as watch:
        groups = list(artifacts.read_rows(samples, Group))
        texts = {g.prompt.id: [c.text for c in g.candidates] for g in groups}
        rows = [
            PreferencePair(
                prompt_id=pair.prompt.id,
                chosen=texts[pair.prompt.id].index(pair.chosen),
                rejected=texts[pair.prompt.id].index(pair.rejected),
                source="world",
            )
            for pair in compared_pairs(world, groups, count)
        ]
        asked = artifacts.asked("pairs", **inputs)
        artifact = artifacts.commit_rows(
            at.store, "pairs", recipe, rows, PreferencePair, parents=[samples], facts={"pairs": len(rows)}, asked=asked
        )
        return made(at, step, artifact, watch)
