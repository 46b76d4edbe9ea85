"""Choose a round's preference pairs."""

from collections.abc import Mapping

import numpy as np
from pydantic import JsonValue

from alignment.errors import UserError
from alignment.selection import Evidence, PolicyName, Selection, Selector
from alignment.types import Artifact, Group, PreferencePair, SequenceLogprobs
from infra import artifacts
from tasks.batches import Batch
from tasks.steps import Place, find_step, made, making, step_task


@step_task("select")
def select(
    groups: Artifact,
    selector: Selector,
    *,
    seed: tuple[int, int],
    at: Place,
    logprobs: Mapping[PolicyName, Artifact] | None = None,
    labelled: Artifact | None = None,
    max_missing: float = 1.0,
) -> Batch:
    """Preference pairs of the groups, with every group that gave none and why.

    ``logprobs`` are the candidates' under the policies that the selector needs; ``labelled`` are pairs of these groups
    for it to review. UserError where no pair is found, or more than ``max_missing`` of the candidates have no score.
    """
    inputs = {"groups": groups, "selector": selector, "seed": seed, "logprobs": logprobs or {}, "labelled": labelled}
    asked, recipe = artifacts.asked("pairs", **inputs), artifacts.recipe_of("pairs", **inputs)
    if done := find_step(at, "select", "pairs", recipe):
        _refuse_missing(done.facts["metrics"], at.folder, max_missing)  # another run may have put up with more
        return Batch(name=at.folder, groups=groups, pairs=done)

    with making(at, "select") as watch:
        rng, evidence = np.random.default_rng(seed), _evidence(logprobs or {}, labelled)
        chosen = selector(artifacts.read_rows(groups, Group), rng, reward="reward", evidence=evidence)
        _refuse_missing(chosen.metrics, at.folder, max_missing)
        _refuse_none(chosen, selector.type, at.folder)
        facts = {
            "selector": selector.type,
            "pairs": len(chosen.pairs),
            "dropped": [d.model_dump() for d in chosen.dropped],
            "metrics": chosen.metrics,
        }
        parents = [groups, *(logprobs or {}).values(), *([labelled] if labelled else [])]
        pairs = artifacts.commit_rows(
            at.store, "pairs", recipe, chosen.pairs, PreferencePair, parents=parents, facts=facts, asked=asked
        )
        return Batch(name=at.folder, groups=groups, pairs=made(at, "select", pairs, watch))


def _evidence(logprobs: Mapping[PolicyName, Artifact], labelled: Artifact | None) -> Evidence:
    return Evidence(
        logprobs={policy: list(artifacts.read_rows(rows, SequenceLogprobs)) for policy, rows in logprobs.items()},
        labelled=None if labelled is None else list(artifacts.read_rows(labelled, PreferencePair)),
    )


def _refuse_missing(metrics: JsonValue | Mapping[str, float], folder: str, max_missing: float) -> None:
    missing = metrics.get("missing_rate") if isinstance(metrics, Mapping) else None
    if isinstance(missing, float) and missing > max_missing:
        raise UserError(
            f"{folder}: {missing:.1%} of the completions have no score, more than max_missing = {max_missing:.1%}; the "
            "reasons are with the score step: mend the reward model, or raise max_missing"
        )


def _refuse_none(chosen: Selection, selector: str, folder: str) -> None:
    if not chosen.pairs:
        reasons = sorted({d.reason for d in chosen.dropped})
        raise UserError(
            f"{folder}: {selector} found no pair in {chosen.metrics['prompts']:g} groups ({'; '.join(reasons)}); "
            "sample more candidates per prompt or lower the margin"
        )
