"""A finished cell of the claims, read back from its run: gold by prompt, tokens, seconds."""

from collections.abc import Sequence

import numpy as np

from alignment.config import RunConfig
from alignment.selection import pairable_rewards
from alignment.summary import Interval, Metrics, interval_of
from alignment.testbed.outcomes import Outcome
from alignment.testbed.sandbox import gold
from alignment.types import Artifact, Group, RoundManifest
from infra import artifacts
from tasks.history import folders, read_manifest, read_steps
from tasks.steps import Place


def read_outcome(config: RunConfig) -> Outcome:
    """Of a run that is finished. ValueError where it is not."""
    rounds = [Place.of(config, f"round-{k:03d}") for k in range(config.rounds)]
    made = [_step(at, "generate") for at in rounds]
    groups = list(artifacts.read_rows(_step(rounds[-1], "score"), Group))
    manifest = _decided(rounds[-1])
    return Outcome(
        best=best_golds(groups),
        trained=mean_golds(list(artifacts.read_rows(manifest.evaluation, Group))),
        completions=sum(_fact(artifact, "completions") / _fact(artifact, "prompts") for artifact in made),
        tokens=sum(_fact(artifact, "tokens") / _fact(artifact, "prompts") for artifact in made),
        draft_tokens=draft_tokens(groups),
        gold=_interval(manifest.metrics, "gold_mean"),
        kl=_interval(manifest.metrics, "kl_initial"),
        seconds=_seconds(config),
    )


def best_golds(groups: Sequence[Group]) -> dict[str, float]:
    """By prompt, gold of the completion with the highest reward; of equal ones, of the first."""
    found: dict[str, float] = {}
    for group in groups:
        rewards_G = pairable_rewards(group, "reward")
        if np.isfinite(rewards_G).any():
            best = group.candidates[int(np.nanargmax(rewards_G))]
            found[_question(group)] = gold(group.prompt, best.text)
    return found


def mean_golds(groups: Sequence[Group]) -> dict[str, float]:
    """By prompt, mean gold over its answers that have one."""
    golds = {_question(g): [score for score in g.rewards.get("gold", ()) if score is not None] for g in groups}
    return {prompt: float(np.mean(scores)) for prompt, scores in golds.items() if scores}


def draft_tokens(groups: Sequence[Group]) -> float:
    """Mean tokens of the completions that refine no other; NaN where there is none."""
    lengths = [len(c.token_ids) for g in groups for c in g.candidates if c.parent is None]
    return float(np.mean(lengths)) if lengths else float("nan")


def _question(group: Group) -> str:
    """The prompt's id, whatever goal it was asked at."""
    return group.prompt.at_goal(None).id


def _step(at: Place, step: str) -> Artifact:
    found = artifacts.named(at.store, at.run, f"{at.folder}/{step}")
    if found is None:
        raise ValueError(f"run {at.run!r} has no {at.folder}/{step}")
    return found


def _decided(at: Place) -> RoundManifest:
    manifest = read_manifest(at)
    if manifest is None:
        raise ValueError(f"run {at.run!r}: {at.folder} is not decided")
    return manifest


def _fact(artifact: Artifact, name: str) -> float:
    value = artifact.facts[name]
    if not isinstance(value, int | float):
        raise ValueError(f"{artifact.uri}: {name} is {value!r}, not a number")
    return float(value)


def _interval(metrics: Metrics, name: str) -> Interval:
    return interval_of(metrics, name) or Interval(mean=float("nan"))


def _seconds(config: RunConfig) -> float:
    """That its steps took where this run made them, the models it began with included."""
    places = [Place.of(config, folder) for folder in folders(config.store, config.run)]
    return sum(step.note.seconds for at in places for step in read_steps(at).values())
