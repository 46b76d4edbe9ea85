"""Move a trained policy's weights before it is measured."""

import shutil

from alignment.merging import Merge
from alignment.types import Artifact
from infra import artifacts
from infra.attempts import alone
from infra.merging import merge_folders
from infra.tree_cache import cache_folder
from tasks.steps import Place, find_step, made, making, step_task

PATIENCE = 3600.0
"""Seconds that a driver waits for another one of this machine, which merges the same."""


@step_task("merge")
def merge(trained: Artifact, start: Artifact, how: Merge, *, at: Place) -> Artifact:
    """``trained`` moved along the way it came from ``start``. Training is found again under any other choice here."""
    inputs = {"trained": trained, "start": start, "how": how}
    asked, recipe = artifacts.asked("policy", **inputs), artifacts.recipe_of("policy", **inputs)
    if done := find_step(at, "merge", "policy", recipe):
        return done

    out = cache_folder() / "merging" / recipe
    with making(at, "merge") as watch, alone(out, timeout=PATIENCE, what=f"merging {recipe[:12]}"):
        if done := find_step(at, "merge", "policy", recipe):  # by whoever worked on it until now
            return done
        merge_folders(artifacts.fetch_tree(trained), artifacts.fetch_tree(start), how.step, out)
        artifact = artifacts.commit_tree(
            at.store, "policy", recipe, out, parents=[trained, start], facts={"step": how.step}, asked=asked
        )
        shutil.rmtree(out)
        return made(at, "merge", artifact, watch)
