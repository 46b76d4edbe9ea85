"""Existing completions and fresh ones of the same prompts, in one group each."""

from alignment.types import Artifact, Failure, Group
from infra import artifacts
from tasks.steps import Place, find_step, made, making, step_task


@step_task("join")
def join(existing: Artifact, fresh: Artifact, *, at: Place) -> Artifact:
    """Groups with the candidates of ``existing`` first, so that pairs of them hold as they are, and no rewards.

    A prompt that only one of the two has keeps the candidates it has.
    """
    inputs = {"existing": existing, "fresh": fresh}
    asked, recipe = artifacts.asked("groups", **inputs), artifacts.recipe_of("groups", **inputs)
    if done := find_step(at, "join", "groups", recipe):
        return done

    with making(at, "join") as watch:
        sampled = {group.prompt.id: group for group in artifacts.read_rows(fresh, Group)}
        rows = [joined(g, sampled.pop(g.prompt.id, None)) for g in artifacts.read_rows(existing, Group)]
        rows += [joined(group, None) for group in sampled.values()]
        groups = artifacts.commit_rows(at.store, "groups", recipe, rows, Group, parents=[existing, fresh], asked=asked)
        return made(at, "join", groups, watch)


def joined(existing: Group, fresh: Group | None) -> Group:
    """``fresh``'s candidates after ``existing``'s, indices and parents moved along. Raises ValueError where the two
    continue another prompt."""
    if fresh is None:
        return existing.model_copy(update={"rewards": {}})
    if fresh.prompt_ids != existing.prompt_ids:
        raise ValueError(f"prompt {existing.prompt.id}: fresh completions continue other tokens than the existing ones")
    first = len(existing.candidates)
    moved = tuple(
        c.model_copy(update={"index": first + c.index, "parent": None if c.parent is None else first + c.parent})
        for c in fresh.candidates
    )
    return Group(
        prompt=existing.prompt,
        prompt_ids=existing.prompt_ids,
        candidates=(*existing.candidates, *moved),
        failures=(*existing.failures, *(_moved(f, first) for f in fresh.failures if f.model is None)),
    )


def _moved(failure: Failure, first: int) -> Failure:
    if failure.candidate is None:
        return failure
    return failure.model_copy(update={"candidate": first + failure.candidate})
