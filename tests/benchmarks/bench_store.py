"""A run of 2,000 rounds and 10,000 artifacts on a local disk: listed, verified and shown from the command line.

The artifacts are small, as what is measured is looking after many of them: each is a file of rows with its record, its
name and its note. Building the store is not part of the time, and does not wait for the disk. Run by path, with ``-s``
for the figures.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment.types import (
    Artifact,
    Candidate,
    Group,
    Kind,
    Message,
    PreferencePair,
    Prompt,
    Record,
    RoundManifest,
    SequenceLogprobs,
    StepNote,
)
from infra import artifacts, run_files

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, ROWS = 2000, 4
SECONDS = 30.0
METRICS = {"reward_mean": 0.5, "gold_mean": 0.5, "gold_low": 0.4, "gold_high": 0.6, "kl_initial": 0.1}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("bench") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        build(str(place))
    return str(place)


def build(store: str) -> None:
    artifacts.claim_run(store, "long", {"run": "long", "rounds": ROUNDS})
    prompts = [Prompt.of((Message(role="user", content=f"prompt {row}"),)) for row in range(ROWS)]
    before = named(store, "start", "prompts", "prompts", prompts, Prompt)
    for number in range(ROUNDS):
        at = f"round-{number:03d}"
        answers = [group(prompt, number, None) for prompt in prompts]
        scored = [group(prompt, number, (0.0, 1.0)) for prompt in prompts]
        lengths = [SequenceLogprobs(prompt_id=p.id, logprobs=(-1.0, -2.0), lengths=(3, 3)) for p in prompts]
        pairs = [PreferencePair(prompt_id=p.id, chosen=1, rejected=0, source="best_worst") for p in prompts]
        completions = named(store, at, "generate", "completions", answers, Group, before)
        groups = named(store, at, "score", "groups", scored, Group, completions)
        logprobs = named(store, at, "logprobs", "logprobs", lengths, SequenceLogprobs, groups)
        chosen = named(store, at, "select", "pairs", pairs, PreferencePair, groups, logprobs)
        before = named(store, at, "answers", "evaluation", scored, Group, chosen)
        manifest = RoundManifest(
            round=number, verdict="rejected", reasons=("bench",), policy=before, evaluation=groups, metrics=METRICS
        )
        artifacts.put_once(store, run_files.manifest_path("long", at), manifest.model_dump_json().encode())


def group(prompt: Prompt, number: int, rewards: tuple[float, ...] | None) -> Group:
    candidates = tuple(
        Candidate(index=k, text=f"answer {k} in round {number}", token_ids=(5, 6 + k, 2), finish_reason="stop")
        for k in range(2)
    )
    return Group(
        prompt=prompt, prompt_ids=(1, 7), candidates=candidates, rewards={"reward": rewards} if rewards else {}
    )


def named(
    store: str, at: str, step: str, kind: Kind, rows: list, row_type: type[Record], *parents: Artifact
) -> Artifact:
    inputs = {"at": at, "step": step, "parents": list(parents)}
    asked, recipe = artifacts.asked(kind, **inputs), artifacts.recipe_of(kind, **inputs)
    made = artifacts.commit_rows(
        store, kind, recipe, rows, row_type, parents=parents, facts={"engine_seconds": 1.0}, asked=asked
    )
    artifacts.name(store, "long", f"{at}/{step}", made)
    note = StepNote(seconds=1.0, reused=False, finished="2026-01-01T00:00:00.000+00:00")
    artifacts.put_once(store, run_files.note_path("long", at, step), note.model_dump_json().encode())
    return made


def timed(*words: str) -> tuple[float, str]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return time.monotonic() - began, done.stdout


def test_ten_thousand_artifacts_are_listed_verified_and_shown(store: str):
    listing, listed = timed("show", "--store", store)
    verifying, verified = timed("verify", store, "long")
    showing, shown = timed("show", "long", "--store", store)
    print(f"\nlisted in {listing:.1f} s, verified in {verifying:.1f} s, shown in {showing:.1f} s")
    assert f"{ROUNDS} of {ROUNDS}" in listed
    assert verified.startswith(f"{ROUNDS * 5 + 1} objects, {ROUNDS * 5 + 1} names in 1 run")
    assert "all is as it was recorded" in verified
    assert "round-1999" in shown or "1999" in shown
    assert listing + verifying + showing < SECONDS


def test_their_lineage_is_drawn_and_a_sweep_is_planned(store: str, tmp_path: Path):
    drawing, _ = timed(
        "lineage", "--store", store, "--run", "long", "round-1999/answers", "--out", str(tmp_path / "long.svg")
    )
    planning, planned = timed("gc", store, "--dry-run")
    print(f"\nlineage drawn in {drawing:.1f} s, sweep planned in {planning:.1f} s")
    assert (tmp_path / "long.svg").read_text().count('class="node') == ROUNDS * 5 + 1
    assert planned == f"Nothing would go; {ROUNDS * 5 + 1} objects stay.\n"
    assert drawing < SECONDS
    assert planning < SECONDS
