"""Choose a round's preference pairs."""

import numpy as np

from alignment.errors import UserError
from alignment.selection import Selector
from alignment.types import Artifact, Group, PreferencePair
from infra import artifacts
from tasks.batches import Batch
from tasks.steps import Place, find_step, made, making, step_task


@step_task("select")
def select(groups: Artifact, selector: Selector, *, seed: tuple[int, int], at: Place) -> Batch:
    """Preference pairs of the groups, with every group that gave none and why."""
    asked = artifacts.asked("pairs", groups=groups, selector=selector, seed=seed)
    recipe = artifacts.recipe_of("pairs", groups=groups, selector=selector, seed=seed)
    if done := find_step(at, "select", "pairs", recipe):
        return Batch(name=at.folder, groups=groups, pairs=done)

    with making(at, "select") as watch:
        rows = list(artifacts.read_rows(groups, Group))
        chosen = selector(rows, np.random.default_rng(seed), reward="reward")
        if not chosen.pairs:
            reasons = sorted({d.reason for d in chosen.dropped})
            raise UserError(
                f"{at.folder}: {selector.type} found no pair in {len(rows)} groups ({'; '.join(reasons)}); sample more "
                "candidates per prompt or lower the margin"
            )
        facts = {
            "pairs": len(chosen.pairs),
            "dropped": [d.model_dump() for d in chosen.dropped],
            "metrics": chosen.metrics,
        }
        pairs = artifacts.commit_rows(
            at.store, "pairs", recipe, chosen.pairs, PreferencePair, parents=[groups], facts=facts, asked=asked
        )
        return Batch(name=at.folder, groups=groups, pairs=made(at, "select", pairs, watch))
