"""Log-probabilities of stored completions under any policy, with the training stack."""

from alignment.execution import Engine
from alignment.types import Artifact, Group, SequenceLogprobs
from infra import artifacts
from infra.engines import open_training_stack
from infra.model_actor import Precision
from tasks import console
from tasks.steps import Place, find_step, made, making, step_task


@step_task("logprobs")
def logprobs(
    policy: Artifact, groups: Artifact, precision: Precision, *, on: Engine, at: Place, step: str = "logprobs"
) -> Artifact:
    """Sequence log-probabilities, keyed by the policy's and the groups' digests, so that every use shares them.

    ``precision`` is the one they will meet other numbers in: a reference is computed as the policy is trained.
    """
    inputs = {"policy": policy, "groups": groups, "precision": precision}
    asked, recipe = artifacts.asked("logprobs", **inputs), artifacts.recipe_of("logprobs", **inputs)
    if done := find_step(at, step, "logprobs", recipe):
        return done

    with making(at, step) as watch:
        rows = list(artifacts.read_rows(groups, Group))
        with open_training_stack(on) as stack, console.progress(f"{at.folder} {step}", len(rows)) as advance:
            found: list[SequenceLogprobs] = []
            for start in range(0, len(rows), on.shard_prompts):
                found += stack.logprobs(policy, rows[start : start + on.shard_prompts], precision=precision)
                advance(len(found))
        artifact = artifacts.commit_rows(
            at.store,
            "logprobs",
            recipe,
            found,
            SequenceLogprobs,
            parents=[policy, groups],
            facts={"engine_seconds": watch.seconds},
            asked=asked,
        )
        return made(at, step, artifact, watch)
