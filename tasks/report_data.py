"""Everything the report shows of a run, read from its store."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignment.report import (
    Answer,
    Curve,
    DroppedRows,
    Example,
    NamedArtifact,
    PairExample,
    ProbeResult,
    ReportData,
    RewardSpread,
    RoundAnswer,
    StepCost,
    group_dropped,
)
from alignment.types import Artifact, Candidate, Dropped, Group, PreferencePair, RoundManifest
from infra import artifacts
from tasks.history import NamedStep, failed_probes, folders, read_manifests, read_run, read_steps
from tasks.steps import Place

EXAMPLES = 8
PAIRS_PER_ROUND = 3

Steps = Mapping[int | None, Mapping[str, NamedStep]]
"""By round; None is before the first."""


def report_data(store: str, run: str) -> ReportData:
    """The run as far as it has come. UserError when there is no such run."""
    manifests, steps = read_manifests(store, run), _steps(store, run)
    return ReportData(
        summary=read_run(store, run),
        spreads=_spreads(manifests),
        examples=_examples(manifests),
        pairs=tuple(pair for k, named in steps.items() if k is not None for pair in _pairs(k, named)),
        dropped=tuple(row for k, named in steps.items() for row in _dropped(k, named)),
        costs=tuple(_cost(k, name, step) for k, named in steps.items() for name, step in named.items()),
        curves=tuple(_curves(steps)),
        probes=(*(probe for k, named in steps.items() for probe in _probes(k, named)), *_failures(store, run)),
        artifacts=tuple(
            NamedArtifact(round=k, name=name, artifact=step.artifact)
            for k, named in steps.items()
            for name, step in named.items()
        ),
    )


def _steps(store: str, run: str) -> Steps:
    numbered = enumerate(folders(store, run), start=-1)
    return {None if k < 0 else k: read_steps(Place(store=store, run=run, folder=folder)) for k, folder in numbered}


def _answers(manifest: RoundManifest) -> dict[str, Group]:
    """By question: a conditioned policy's prompts have a goal that the initial policy's have not."""
    return {g.prompt.at_goal(None).id: g for g in artifacts.read_rows(manifest.evaluation, Group)}


def _spreads(manifests: Sequence[RoundManifest]) -> tuple[RewardSpread, ...]:
    """Rewards before the run and under the policy promoted last, or the last one trained when none was."""
    if len(manifests) < 2:
        return ()
    initial, *rounds = manifests
    last = next((m for m in reversed(rounds) if m.verdict == "promoted"), rounds[-1])
    before, after = _answers(initial), _answers(last)
    spreads = []
    for measure in ("reward", "gold"):
        old, new = _rewards(before, measure), _rewards(after, measure)
        if old and new and _one_scale(initial, last, measure):
            spreads.append(RewardSpread(measure=measure, before=old, after=new, round=last.round))
    return tuple(spreads)


def _one_scale(a: RoundManifest, b: RoundManifest, measure: str) -> bool:
    """Whether one and the same reward model scored both, as far as that was noted."""
    ours, theirs = (
        {place: digest for place, digest in m.rewards.items() if place.split(".")[0] == measure} for m in (a, b)
    )
    return not ours or not theirs or ours == theirs


def _rewards(groups: Mapping[str, Group], measure: str) -> tuple[float, ...]:
    return tuple(r for g in groups.values() for r in g.rewards.get(measure, ()) if r is not None)


def _examples(manifests: Sequence[RoundManifest]) -> tuple[Example, ...]:
    """The first held-out prompts by digest: nobody picked them."""
    answers = [(m.round, _answers(m)) for m in manifests]
    if not answers:
        return ()
    shown = sorted(answers[0][1])[:EXAMPLES]
    return tuple(
        Example(
            prompt=answers[0][1][prompt].prompt,
            answers=tuple(
                RoundAnswer(round=None if k < 0 else k, **_answer(groups[prompt], groups[prompt].candidates[0]))
                for k, groups in answers
                if prompt in groups and groups[prompt].candidates
            ),
        )
        for prompt in shown
    )


def _answer(group: Group, candidate: Candidate) -> dict[str, Any]:
    rewards = {name: rewards_G[candidate.index] for name, rewards_G in group.rewards.items()}
    return {
        "text": candidate.text,
        "reward": rewards.get("reward"),
        "gold": rewards.get("gold"),
        "truncated": candidate.finish_reason == "length",
    }


def _pairs(k: int, steps: Mapping[str, NamedStep]) -> Iterator[PairExample]:
    last_first = (("relabel", "relabel-groups"), ("label", "score"), ("select", "score"))
    made_by = next((named for named in last_first if steps.keys() >= {*named}), None)
    if made_by is None:
        return
    pairs = sorted(artifacts.read_rows(steps[made_by[0]].artifact, PreferencePair), key=lambda p: p.prompt_id)
    groups = {g.prompt.id: g for g in artifacts.read_rows(steps[made_by[1]].artifact, Group)}
    for pair in pairs[:PAIRS_PER_ROUND]:
        group = groups[pair.prompt_id]
        chosen, rejected = group.candidates[pair.chosen], group.candidates[pair.rejected]
        yield PairExample(
            round=k,
            prompt=group.prompt,
            chosen=Answer(**_answer(group, chosen)),
            rejected=Answer(**_answer(group, rejected)),
            source=pair.source,
            p=pair.p,
            margin=pair.margin,
            condition=pair.condition,
        )


def _dropped(k: int | None, steps: Mapping[str, NamedStep]) -> Iterator[DroppedRows]:
    for step in steps.values():
        rows = step.artifact.facts.get("dropped")
        if isinstance(rows, list):
            yield from group_dropped((Dropped.model_validate(row) for row in rows), round=k)


def _cost(k: int | None, name: str, step: NamedStep) -> StepCost:
    tokens = step.artifact.facts.get("tokens")
    return StepCost(
        round=k,
        step=name,
        seconds=step.note.seconds,
        tokens=tokens if isinstance(tokens, int) else None,
        reused=step.note.reused,
    )


def _curves(steps: Steps) -> Iterator[Curve]:
    for k, named in steps.items():
        if k is not None and "train" in named and (log := _train_log(named["train"].artifact)):
            yield Curve(round=k, **{name: tuple(row[name] for row in log) for name in ("loss", "accuracy", "margin")})


def _train_log(policy: Artifact) -> list[dict[str, float]]:
    path = artifacts.fetch_tree(policy) / "train_log.json"
    return json.loads(path.read_text()) if path.exists() else []


def _failures(store: str, run: str) -> Iterator[ProbeResult]:
    for failed in failed_probes(store, run):
        note = f"{failed.evidence.said}. What was compared: {failed.path}"
        yield ProbeResult(
            round=int(failed.folder.removeprefix("round-")) if failed.folder.startswith("round-") else None,
            name=f"{failed.step}: {failed.evidence.probe}",
            passed=False,
            numbers=failed.evidence.numbers,
            note=f"{note}. The step was made later." if failed.mended else note,
        )


def _probes(k: int | None, steps: Mapping[str, NamedStep]) -> Iterator[ProbeResult]:
    for name, step in steps.items():
        probes = step.artifact.facts.get("probes")
        for probe, numbers in probes.items() if isinstance(probes, dict) else ():
            if isinstance(numbers, dict):
                found = {key: float(v) for key, v in numbers.items() if isinstance(v, int | float)}
                held = found.get("worst", math.inf) <= found.get("bound", 0.0)
                yield ProbeResult(round=k, name=f"{name}: {probe}", passed=held, numbers=found)
