"""A round's pairs labelled by gold: order, what is dropped and why, and what makes it other work."""

from pathlib import Path

import pytest
from report_runs import whole_summary

from alignment.errors import UserError
from alignment.execution import Engine
from alignment.labeling import ByGold
from alignment.rewards import Verifier
from alignment.types import Artifact, Candidate, Group, Message, PreferencePair, Prompt
from infra import artifacts
from tasks.batches import Batch
from tasks.gold_label import label_by_gold
from tasks.headline import remarks
from tasks.judges import Judge
from tasks.recipe import parse_config
from tasks.start import identity
from tasks.steps import Place

RECIPE = b'policy = "m"\nprompts = { type = "file", path = "p" }\nreward = { type = "scalar_head", model = "r" }'
POLICY = Artifact(kind="policy", uri="memory://s/objects/policy/x", recipe="x", digest="d")


def length(prompt: Prompt, completion: str) -> float:
    """Longer is better; a text with a question mark has no score."""
    if "?" in completion:
        raise ValueError("it asks")
    return float(len(completion))


GOLD = Judge(name="gold", spec=Verifier(function=f"{__name__}:length"), source="s")


@pytest.fixture
def at(tmp_path: Path) -> Place:
    place = Place(store=str(tmp_path / "runs"), run="r", folder="round-000")
    artifacts.claim_run(place.store, "r", identity(parse_config(RECIPE, [], where="r", run="r")))
    return place


def batch_of(at: Place, *texts_P: tuple[str, str]) -> Batch:
    groups = [
        Group(
            prompt=Prompt.of((Message(role="user", content=f"q{i}"),)),
            prompt_ids=(1,),
            candidates=tuple(
                Candidate(index=k, text=text, token_ids=(2,), finish_reason="stop") for k, text in enumerate(texts)
            ),
            rewards={"reward": (1.0, 0.0)},
        )
        for i, texts in enumerate(texts_P)
    ]
    pairs = [
        PreferencePair(prompt_id=g.prompt.id, chosen=0, rejected=1, source="best_worst", margin=1.0) for g in groups
    ]
    named = {kind: artifacts.recipe_of(kind, texts=[list(texts) for texts in texts_P]) for kind in ("groups", "pairs")}
    return Batch(
        name="round-000",
        groups=artifacts.commit_rows(at.store, "groups", named["groups"], groups, Group),
        pairs=artifacts.commit_rows(at.store, "pairs", named["pairs"], pairs, PreferencePair),
    )


def labelled(batch: Batch, at: Place, *, noise: float = 0.0, seed: int = 0) -> Batch:
    how = ByGold(noise=noise)
    return label_by_gold.__wrapped__(batch, how, GOLD, POLICY, seed=(seed, 0), on=Engine(), at=at)


def test_gold_orders_the_pairs_and_what_it_cannot_order_is_dropped_and_counted(at: Place):
    """Longer wins: the first stays, the second turns, the third is a tie, the fourth has no score."""
    made = labelled(batch_of(at, ("long", "x"), ("x", "long"), ("one", "two"), ("four", "what?")), at)
    first, second = artifacts.read_rows(made.pairs, PreferencePair)
    assert (first.chosen, second.chosen) == (0, 1)
    assert [d["reason"] for d in made.pairs.facts["dropped"]] == ["gold ties", "gold: ValueError: it asks"]
    assert made.pairs.facts["metrics"] == {"label_asked": 4, "label_turned": 1, "label_against_gold": 0}


def test_the_seed_makes_other_work_only_where_it_is_drawn_from(at: Place):
    batch = batch_of(at, *((f"{i:03d}", f"{i:04d}") for i in range(50)))
    exact = labelled(batch, at).pairs
    elsewhere = at.model_copy(update={"folder": "round-001"})
    assert labelled(batch, elsewhere, seed=1).pairs == exact
    first, second = (
        labelled(batch, at.model_copy(update={"run": f"noisy-{seed}"}), noise=2.0, seed=seed).pairs for seed in (0, 1)
    )
    assert first.digest != second.digest
    wrong = [p.chosen == 0 for p in artifacts.read_rows(first, PreferencePair)]  # the shorter one
    assert first.facts["metrics"]["label_against_gold"] == sum(wrong) > 0


def test_pairs_that_gold_orders_nowhere_end_the_step_with_the_reasons(at: Place):
    with pytest.raises(UserError, match=r"ordered none of 2 pairs \(gold ties; gold: ValueError: it asks\)"):
        labelled(batch_of(at, ("one", "two"), ("a?", "b")), at)


def test_labels_of_a_gold_reward_that_is_not_there_are_refused():
    with pytest.raises(UserError, match=r"label\.type = 'gold' but there is no gold reward: set gold, or"):
        parse_config(RECIPE, ["--label.type", "gold"], where="r", run="r")


def test_the_report_does_not_call_gold_unseen_where_it_made_the_labels():
    run = whole_summary()
    told = run.model_copy(update={"config": {**run.config, "label": {"type": "gold", "noise": 0.0}}})
    said = "Gold reward ordered the training pairs, so it is no measure that training could not see."
    assert said in remarks(told)
    assert said not in remarks(run)
