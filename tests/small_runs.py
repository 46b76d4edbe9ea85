"""A store as real runs leave it, at the smallest size: the steps of a run with their names, notes and manifests."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from alignment.types import Artifact, Dropped, Kind, RoundManifest, StepNote
from infra import artifacts, run_files


class SmallRun(NamedTuple):
    """A run of a store, and what its steps made, by name such as ``round-000/train``."""

    store: str
    run: str
    made: dict[str, Artifact]

    def key(self, name: str) -> str:
        return f"{self.made[name].kind}/{self.made[name].recipe}"


def small_run(store: str, folder: Path, run: str = "small", rounds: int = 2) -> SmallRun:
    """A run whose every round is promoted: policy and reward model, then completions, groups, pairs and a policy."""
    artifacts.claim_run(store, run, {"run": run, "rounds": rounds})
    here = SmallRun(store, run, {})
    begin = model(here, folder, "start/policy", "policy")
    prompts = rows(here, "start/prompts", "prompts")
    judge = model(here, folder, "start/reward-model", "reward_model", begin)
    manifest(here, "start", -1, begin, prompts)
    best, promotion = begin, None
    for number in range(rounds):
        at = f"round-{number:03d}"
        completions = rows(here, f"{at}/generate", "completions", best, prompts, shards=2)
        groups = rows(here, f"{at}/score", "groups", completions, judge, shards=2)
        pairs = rows(here, f"{at}/select", "pairs", groups)
        best = model(here, folder, f"{at}/train", "policy", best, begin, pairs)
        manifest(here, at, number, best, groups)
        promotion = artifacts.promote(store, run, best, number, promotion)
    return here


def rows(here: SmallRun, name: str, kind: Kind, *parents: Artifact, shards: int = 0) -> Artifact:
    """A step that makes three rows, whole or in shards."""
    made = [Dropped(step=name, item=str(number), reason="small") for number in range(3)]
    asked = artifacts.asked(kind, step=name, parents=list(parents))
    recipe = artifacts.recipe_of(kind, step=name, parents=list(parents))
    if shards:
        parts = [
            artifacts.commit_shard(here.store, kind, recipe, number, made[number::shards], Dropped)
            for number in range(shards)
        ]
        return named(here, name, artifacts.commit_shards(here.store, kind, recipe, parts, parents=parents, asked=asked))
    return named(
        here, name, artifacts.commit_rows(here.store, kind, recipe, made, Dropped, parents=parents, asked=asked)
    )


def model(here: SmallRun, folder: Path, name: str, kind: Kind, *parents: Artifact) -> Artifact:
    """A step that makes a folder of two files."""
    source = folder / f"{here.run}-{name.replace('/', '-')}"
    (source / "nested").mkdir(parents=True, exist_ok=True)
    (source / "model.safetensors").write_bytes(name.encode() * 100)
    (source / "nested" / "config.json").write_text("{}")
    asked = artifacts.asked(kind, step=name, parents=list(parents))
    recipe = artifacts.recipe_of(kind, step=name, parents=list(parents))
    return named(here, name, artifacts.commit_tree(here.store, kind, recipe, source, parents=parents, asked=asked))


def named(here: SmallRun, name: str, artifact: Artifact) -> Artifact:
    """Name it in the run, with its note, as a step does."""
    artifacts.name(here.store, here.run, name, artifact)
    folder, step = name.split("/")
    note = StepNote(seconds=1.0, reused=False, finished=datetime.now(UTC).isoformat(timespec="milliseconds"))
    artifacts.put_once(here.store, run_files.note_path(here.run, folder, step), note.model_dump_json().encode())
    here.made[name] = artifact
    return artifact


def manifest(here: SmallRun, folder: str, number: int, policy: Artifact, evaluation: Artifact) -> None:
    made = RoundManifest(
        round=number, verdict="promoted", reasons=("small",), policy=policy, evaluation=evaluation, metrics={}
    )
    path = run_files.manifest_path(here.run, folder)
    artifacts.put_once(here.store, path, made.model_dump_json().encode())
