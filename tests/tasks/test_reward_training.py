"""A reward model trained on labelled pairs as a step of a run: where its pairs come from, and what finds it again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.models import Pretrained, Trained
from alignment.rewards import ScalarHead
from alignment.testbed import sandbox
from alignment.testbed.sandbox import gold
from alignment.types import Artifact, Candidate, Group, PreferencePair
from alignment.worlds import Sandbox
from infra import artifacts, models, reward_job
from tasks.adopt import adopt_judges
from tasks.labels import world_labels
from tasks.recipe import parse_config
from tasks.reward_training import labelled_pairs, train_model
from tasks.start import _read_pairs_to_learn_from, identity
from tasks.steps import Place

RECIPE = b"""
policy = "m"
prompts = { type = "file", path = "p" }
reward = { type = "scalar_head", model.type = "trained" }
"""
WORLD = b"""
policy = { type = "scratch", examples = 9 }
prompts = { type = "world" }
world = { type = "sandbox", label_noise = 0.01 }
reward = { type = "scalar_head", model.type = "trained" }
"""


def config_of(recipe: bytes, *overrides: str) -> RunConfig:
    return parse_config(recipe, overrides, where="r", run="r")


def how(config: RunConfig) -> Trained:
    assert isinstance(config.reward, ScalarHead)
    assert isinstance(config.reward.model, Trained)
    return config.reward.model


@pytest.fixture
def at(tmp_path: Path) -> Place:
    place = Place(store=str(tmp_path / "runs"), run="r", folder="start")
    artifacts.claim_run(place.store, "r", identity(config_of(RECIPE, "--reward.model.pairs", "x")))
    return place


@pytest.fixture
def policy(at: Place, tiny_policy: Path) -> Artifact:
    return models.adopt_model(at.store, Pretrained(model=str(tiny_policy)), "policy")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Jobs run here and not in a Ray worker; the list has what was run."""
    ran: list[str] = []

    def call(job: Callable[..., Artifact], work: tuple[Any, ...], on: object, advance: object, what: str, *, gpu: bool):
        ran.append(what)
        (folder := tmp_path / f"job-{len(ran)}").mkdir()
        return job(*work, folder, advance)

    monkeypatch.setattr(reward_job, "in_worker", call)
    return ran


def pair_file(folder: Path, *lines: str, name: str = "pairs.jsonl") -> str:
    rows = [json.dumps({"prompt": f"Note {i}.", "chosen": f"Thank you {i}.", "rejected": "No."}) for i in range(30)]
    (folder / name).write_text("\n".join([*rows, *lines]) + "\n")
    return str(folder / name)


def trained(config: RunConfig, policy: Artifact, at: Place) -> Artifact:
    pairs = labelled_pairs(config, how(config), policy, policy, None, step="reward-model-pairs", at=at)
    spec, skip = config.reward, config.skip_bad_rows
    assert isinstance(spec, ScalarHead)
    step = "reward-model"
    return train_model(spec, how(config), policy, (pairs,), skip_bad_rows=skip, step=step, on=config.engine, at=at)


def test_a_file_of_pairs_makes_a_reward_model_that_is_found_again_from_anywhere(
    at: Place, policy: Artifact, tmp_path: Path, in_this_process: list[str]
):
    """The same rows under another path are the same pairs; another rate is other work."""
    first = trained(config_of(RECIPE, "--reward.model.pairs", pair_file(tmp_path)), policy, at)
    elsewhere = pair_file(tmp_path, name="copy.jsonl")
    again = at.model_copy(update={"run": "again"})
    assert trained(config_of(RECIPE, "--reward.model.pairs", elsewhere), policy, again) == first
    assert len(in_this_process) == 1
    assert first.kind == "reward_model"
    assert first.facts["pairs"] + first.facts["held_out_pairs"] == 30
    assert {"ranking_accuracy", "ranking_accuracy_low", "ranking_accuracy_high"} <= set(first.facts)
    faster = config_of(RECIPE, "--reward.model.pairs", elsewhere, "--reward.model.learning_rate", "1e-4")
    assert trained(faster, policy, at.model_copy(update={"run": "faster"})).recipe != first.recipe


def test_a_bad_row_names_its_line_or_is_dropped_and_counted(at: Place, policy: Artifact, tmp_path: Path):
    path = pair_file(tmp_path, '{"prompt": "q", "chosen": 3}')
    config = config_of(RECIPE, "--reward.model.pairs", path)
    with pytest.raises(UserError, match=r"pairs\.jsonl: line 31: .*--skip-bad-rows"):
        labelled_pairs(config, how(config), policy, policy, None, step="s", at=at)
    config = config_of(RECIPE, "--reward.model.pairs", path, "--skip_bad_rows", "true")
    found = labelled_pairs(config, how(config), policy, policy, None, step="s", at=at)
    assert (found.pairs.facts["pairs"], len(found.pairs.facts["dropped"])) == (30, 1)


def test_a_file_that_cannot_be_learnt_from_is_told_before_a_policy_is_trained(tmp_path: Path):
    path = pair_file(tmp_path, "no json")
    with pytest.raises(UserError, match=r"pairs\.jsonl: line 31"):
        _read_pairs_to_learn_from(config_of(WORLD, "--reward.model.pairs", path))


def test_the_sandbox_labels_what_the_policy_wrote_by_gold(at: Place):
    """With next to no noise the better answer of every pair is chosen; texts that stand twice are one completion."""
    world = Sandbox(label_noise=0.001)
    prompts = sandbox.label_prompts(world, 8)
    groups = [
        Group(
            prompt=prompt,
            prompt_ids=(1,),
            candidates=tuple(
                Candidate(index=i, text=text, token_ids=(2,), finish_reason="stop")
                for i, text in enumerate(("Hello.", f"Hello {prompt.metadata['name']}. Take care.", "Hello."))
            ),
        )
        for prompt in prompts
    ]
    samples = artifacts.commit_rows(at.store, "groups", artifacts.recipe_of("groups", name="g"), groups, Group)
    made = world_labels(samples, world, 10, step="pairs", at=at)
    pairs = list(artifacts.read_rows(made, PreferencePair))
    assert len(pairs) == 10
    assert {pair.prompt_id for pair in pairs} == {p.id for p in prompts[:5]}
    assert {*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)} == {0, 1}
    by_id = {g.prompt.id: g for g in groups}
    for pair in pairs:
        better, worse = (by_id[pair.prompt_id].candidates[i].text for i in (pair.chosen, pair.rejected))
        assert gold(by_id[pair.prompt_id].prompt, better) > gold(by_id[pair.prompt_id].prompt, worse)
    with pytest.raises(UserError, match="its label samples give 16 pairs"):
        world_labels(samples, world, 17, step="more", at=at)


@pytest.mark.parametrize(
    ("recipe", "overrides", "said"),
    [
        (RECIPE, [], "reward.model.pairs is missing, and only the sandbox labels pairs itself"),
        (WORLD, [], "reward.model.examples is missing: the sandbox labels as many pairs as it is asked for"),
        (
            RECIPE,
            ["--reward.model.pairs", "x", "--reward.model.held_out", "0.1"],
            "reward.model.held_out = 0.1 is less than evaluate.held_out = 0.2",
        ),
        (
            RECIPE,
            ["--reward.model.pairs", "x", "--policy", "{ type = 'trained' }"],
            "policy: Input tag 'trained' found",
        ),
    ],
)
def test_what_cannot_be_learnt_is_refused_when_it_is_read(recipe: bytes, overrides: list[str], said: str):
    with pytest.raises(UserError) as error:
        config_of(recipe, *overrides)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bare_string_is_a_start():
    config = config_of(RECIPE, "--reward.model.pairs", "x", "--reward.model.start", "some/model")
    assert how(config).start == Pretrained(model="some/model")


@pytest.mark.parametrize(("type_", "kind"), [("scalar_head", "reward_model"), ("pairwise", "policy")])
def test_a_run_adopts_a_reward_whose_model_it_trains(
    type_: str, kind: str, at: Place, policy: Artifact, tmp_path: Path, in_this_process: list[str]
):
    """A ranking model is a language model, and what it is asked bears identity."""
    start = str(artifacts.fetch_tree(policy))
    words = ["--reward.type", type_, "--reward.model.pairs", pair_file(tmp_path), "--reward.model.start", start]
    if type_ == "pairwise":
        words += ["--reward.template", "{prompt} A: {a} B: {b} "]
    (judge,) = adopt_judges.__wrapped__(config_of(RECIPE, *words), policy, None, at=at)
    model = judge.models["model"]
    assert (model.kind, judge.identity["models"]) == (kind, {"model": model.digest})
    assert "ranking_accuracy" in model.facts
    if type_ == "pairwise":
        elsewhere = at.model_copy(update={"run": "other"})
        words[-1] = "{prompt} first: {a} second: {b} "
        (other,) = adopt_judges.__wrapped__(config_of(RECIPE, *words), policy, None, at=elsewhere)
        assert other.models["model"].recipe != model.recipe
