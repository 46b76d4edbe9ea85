"""Log-probabilities of stored completions under any policy, with the training stack."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from alignment.execution import Engine
from alignment.types import Artifact, Group, SequenceLogprobs, TokenLogprobs
from infra import artifacts
from infra.engines import open_training_stack
from infra.model_actor import Precision
from tasks import console
from tasks.steps import Place, find_step, made, making, step_task


@step_task("logprobs")
def logprobs(
    policy: Artifact,
    groups: Artifact,
    precision: Precision,
    *,
    on: Engine,
    at: Place,
    step: str = "logprobs",
    of: Literal["sequence", "token"] = "sequence",
) -> Artifact:
    """Log-probabilities of sequences, or of each token, keyed by the policy's and the groups' digests, so that every
    use shares them.

    ``precision`` is the one they will meet other numbers in: a reference is computed as the policy is trained.
    """
    inputs = {"policy": policy, "groups": groups, "precision": precision, **({"of": of} if of == "token" else {})}
    asked, recipe = artifacts.asked("logprobs", **inputs), artifacts.recipe_of("logprobs", **inputs)
    if done := find_step(at, step, "logprobs", recipe):
        return done

    with making(at, step) as watch:
        rows = list(artifacts.read_rows(groups, Group))
        with open_training_stack(on) as stack, console.progress(f"{at.folder} {step}", len(rows)) as advance:
            compute = stack.logprobs_by_token if of == "token" else stack.logprobs

            def measure(shard: Sequence[Group]) -> Sequence[SequenceLogprobs | TokenLogprobs]:
                return compute(policy, shard, precision=precision)

            shards = [rows[start : start + on.shard_prompts] for start in range(0, len(rows), on.shard_prompts)]
            found: list[SequenceLogprobs | TokenLogprobs] = []
            with ThreadPoolExecutor(stack.processes, "logprobs") as measuring:
                for measured in measuring.map(measure, shards):  # an error cancels those that have not begun
                    found += measured
                    advance(len(found))
        artifact = artifacts.commit_rows(
            at.store,
            "logprobs",
            recipe,
            found,
            TokenLogprobs if of == "token" else SequenceLogprobs,
            parents=[policy, groups],
            facts={"engine_seconds": watch.seconds},
            asked=asked,
        )
        return made(at, step, artifact, watch)
