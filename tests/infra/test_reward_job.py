"""The same training in a Ray worker: what it commits, and how its refusals come back."""

from pathlib import Path

import pytest
from labelled_questions import question, thanks

from alignment.errors import UserError
from alignment.execution import Engine
from alignment.models import Pretrained, Trained
from alignment.rewards import ScalarHead
from alignment.types import Artifact, Group, PreferencePair
from infra import artifacts, models
from infra.reward_job import Labelled, train_on_pairs
from infra.reward_objectives import Question

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]
HOW = Trained(pairs="a file", learning_rate=1e-3)
SPEC = ScalarHead(model=HOW)


def stored(store: str, writer: Artifact, questions: list[Question]) -> Labelled:
    named = [q.group.prompt.id for q in questions]
    groups_recipe, pairs_recipe = (artifacts.recipe_of(kind, prompts=named) for kind in ("groups", "pairs"))
    groups, pairs = [q.group for q in questions], [pair for q in questions for pair in q.pairs]
    return Labelled(
        groups=artifacts.commit_rows(store, "groups", groups_recipe, groups, Group),
        pairs=artifacts.commit_rows(store, "pairs", pairs_recipe, pairs, PreferencePair),
        writer=writer,
    )


def trained(store: str, start: Artifact, labelled: Labelled, heard: list[tuple[int, int, float]]) -> Artifact:
    asked = artifacts.asked("reward_model", pairs=labelled.pairs)
    recipe = artifacts.recipe_of("reward_model", pairs=labelled.pairs)
    return train_on_pairs(
        store, recipe, asked, SPEC, HOW, start, (labelled,), skip_bad_rows=False,
        on=Engine(threads=1, timeout=400), advance=lambda *step: heard.append(step),
    )  # fmt: skip


def test_a_worker_commits_what_it_trained_and_says_so_as_it_goes(tiny_policy: Path, tmp_path: Path):
    store, heard = str(tmp_path / "store"), []
    start = models.adopt_model(store, Pretrained(model=str(tiny_policy)), "policy")
    labelled = stored(store, start, thanks(tiny_policy, 20))
    model = trained(store, start, labelled, heard)
    assert model.kind == "reward_model"
    assert set(model.parents) == {f"{a.kind}/{a.recipe}" for a in (start, labelled.groups, labelled.pairs)}
    assert model.facts["pairs"] + model.facts["held_out_pairs"] == 40
    assert (artifacts.fetch_tree(model) / "model.safetensors").is_file()
    assert heard[-1][0] == heard[-1][1]


def test_a_workers_refusal_is_the_callers_one_line(tiny_policy: Path, tmp_path: Path):
    store = str(tmp_path / "store")
    start = models.adopt_model(store, Pretrained(model=str(tiny_policy)), "policy")
    long = question(tiny_policy, 99, ("Thank you. " * 40, "No."))
    with pytest.raises(UserError, match="exceed the reward model's context of 128"):
        trained(store, start, stored(store, start, [*thanks(tiny_policy, 20), long]), [])
