"""A round's pairs in the order of the gold reward."""

from collections.abc import Sequence

from alignment.errors import UserError
from alignment.execution import Engine
from alignment.labeling import ByGold
from alignment.types import Artifact, Dropped, Group, PreferencePair
from infra import artifacts
from infra.engines import open_scorers
from tasks.batches import Batch
from tasks.judges import Judge, sources_of
from tasks.steps import Place, find_step, made, making, step_task


@step_task("label")
def label_by_gold(
    batch: Batch, how: ByGold, gold: Judge, policy: Artifact, *, seed: tuple[int, int], on: Engine, at: Place
) -> Batch:
    """The batch's pairs as gold orders them; ties and pairs without a gold score are dropped and counted.

    ``policy`` is whose tokenizer wrote the completions' ids.
    """
    inputs = {"groups": batch.groups, "pairs": batch.pairs, "label": how, "gold": gold.identity}
    if how.noise:
        inputs["seed"] = seed
    recipe = artifacts.recipe_of("pairs", **inputs)
    if done := find_step(at, "label", "pairs", recipe):
        return Batch(name=batch.name, groups=batch.groups, pairs=done)

    with making(at, "label") as watch:
        pairs = list(artifacts.read_rows(batch.pairs, PreferencePair))
        asked = {pair.prompt_id for pair in pairs}
        groups = [g for g in artifacts.read_rows(batch.groups, Group) if g.prompt.id in asked]
        with open_scorers(on, sources_of((gold,)), policy=policy, seed=(recipe,)) as scorers:
            scored = {g.prompt.id: g for g in scorers.score(groups)}
            probes = {name: probe.model_dump(mode="json") for name, probe in scorers.probes.items()}
        answers = [how(pair, scored[pair.prompt_id], seed=seed) for pair in pairs]
        kept = [answer for answer in answers if isinstance(answer, PreferencePair)]
        dropped = _dropped(pairs, answers)
        if not kept:
            reasons = "; ".join(sorted({d.reason for d in dropped}))
            raise UserError(f"{at.folder}: gold ordered none of {len(pairs)} pairs ({reasons}); see what gold scores")
        facts = {
            "pairs": len(kept),
            "dropped": [d.model_dump() for d in dropped],
            "probes": probes,
            "metrics": {
                "label_asked": len(pairs),
                "label_turned": sum(_turned(pair, answer) for pair, answer in zip(pairs, answers, strict=True)),
                "label_against_gold": sum(_against(pair, scored[pair.prompt_id]) for pair in kept),
            },
        }
        artifact = artifacts.commit_rows(
            at.store, "pairs", recipe, kept, PreferencePair, parents=[batch.groups, batch.pairs, *gold.artifacts],
            facts=facts, asked=artifacts.asked("pairs", **inputs),
        )  # fmt: skip
        return Batch(name=batch.name, groups=batch.groups, pairs=made(at, "label", artifact, watch))


def _dropped(pairs: Sequence[PreferencePair], answers: Sequence[PreferencePair | str]) -> list[Dropped]:
    return [
        Dropped(step="label", item=f"{pair.prompt_id}:{pair.chosen},{pair.rejected}", reason=answer)
        for pair, answer in zip(pairs, answers, strict=True)
        if isinstance(answer, str)
    ]


def _turned(pair: PreferencePair, answer: PreferencePair | str) -> bool:
    return isinstance(answer, PreferencePair) and answer.chosen != pair.chosen


def _against(pair: PreferencePair, group: Group) -> bool:
    """Whether noise chose what gold holds for worse."""
    chosen, rejected = (group.rewards["gold"][i] for i in (pair.chosen, pair.rejected))
    return chosen is not None and rejected is not None and chosen < rejected
