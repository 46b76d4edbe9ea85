"""Held-out pairs that policies and rewards are asked to rank, where the run was given none."""

import numpy as np

from alignment.selection import BestWorst
from alignment.types import Artifact, Group, PreferencePair
from infra import artifacts
from tasks.batches import Batch
from tasks.decide import Evaluation
from tasks.inputs import Inputs
from tasks.steps import Place, find_step, made, making, step_task


@step_task("ranking-pairs")
def with_ranking_pairs(inputs: Inputs, initial: Evaluation, *, at: Place) -> tuple[Inputs, Evaluation]:
    """The best against the worst of the initial policy's held-out answers, by gold where there is one, else by the
    reward. Pairs that came with the run stay instead. They are fixed for the run, so that rounds compare."""
    if inputs.held_out_pairs is not None or not inputs.judges:
        return inputs, initial
    names = [judge.name for judge in inputs.judges]
    batch = Batch(
        name="ranking-pairs",
        groups=initial.groups,
        pairs=_pairs(initial.groups, "gold" if "gold" in names else "reward", at),
    )
    measured = initial.model_copy(update={"pairs": batch, "pairs_own": initial.own, "pairs_base": initial.base})
    return inputs.model_copy(update={"held_out_pairs": batch}), measured


def _pairs(groups: Artifact, label: str, at: Place) -> Artifact:
    inputs = {"groups": groups, "label": label}
    recipe = artifacts.recipe_of("pairs", **inputs)
    if done := find_step(at, "ranking-pairs", "pairs", recipe):
        return done

    with making(at, "ranking-pairs") as watch:
        answered = [g for g in artifacts.read_rows(groups, Group) if g.candidates]
        chosen = BestWorst()(answered, np.random.default_rng(0), reward=label)
        facts = {"pairs": len(chosen.pairs), "dropped": [d.model_dump() for d in chosen.dropped]}
        asked = artifacts.asked("pairs", **inputs)
        artifact = artifacts.commit_rows(
            at.store, "pairs", recipe, chosen.pairs, PreferencePair, parents=[groups], facts=facts, asked=asked
        )
        return made(at, "ranking-pairs", artifact, watch)
