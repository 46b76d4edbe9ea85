"""The relabel step: rows under goals that train as they are, and prompts at the goal that is served."""

import json
import shutil
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.packing import training_groups
from alignment.relabeling import RewardConditioned
from alignment.rendering import load_tokenizer
from alignment.score_maps import AffineFit, ScoreMap
from alignment.testbed.sandbox import vocabulary
from alignment.types import Artifact, Candidate, Group, Message, PreferencePair, Prompt, SequenceLogprobs
from infra import artifacts
from infra.model_folder import write_goal_template
from infra.tokenizing import word_level
from tasks.batches import Batch
from tasks.inputs import Inputs
from tasks.recipe import parse_config
from tasks.relabel import relabel, served_at_goal
from tasks.start import identity
from tasks.steps import Place

relabel_plainly = relabel.__wrapped__
served_plainly = served_at_goal.__wrapped__
RECIPE = b"""
policy = "m"
prompts = { type = "file", path = "p.jsonl" }
reward = { type = "scalar_head", model = "r" }
relabel = { type = "reward_conditioned" }
"""
SHORT = RewardConditioned(text="Score {goal}.")


@pytest.fixture
def at(tmp_path: Path) -> Place:
    place = Place(store=str(tmp_path / "runs"), run="r", folder="round-000")
    artifacts.claim_run(place.store, "r", identity(parse_config(RECIPE, [], where="r", run="r")))
    return place


@pytest.fixture
def policy(at: Place, tiny_policy: Path) -> Artifact:
    return artifacts.commit_tree(at.store, "policy", artifacts.recipe_of("policy", name="p"), tiny_policy)


def group(i: int, rewards: tuple[float | None, ...]) -> Group:
    prompt = Prompt.of((Message(role="user", content=f"prompt {i}"),))
    candidates = tuple(
        Candidate(index=k, text=f"answer {k}", token_ids=(5, 6 + k, 2), finish_reason="stop")
        for k in range(len(rewards))
    )
    return Group(prompt=prompt, prompt_ids=(1, 7), candidates=candidates, rewards={"reward": rewards})


def batch_of(at: Place, rewards: list[tuple[float | None, ...]]) -> Batch:
    groups = [group(i, of) for i, of in enumerate(rewards)]
    pairs = [PreferencePair(prompt_id=g.prompt.id, chosen=1, rejected=0, source="test") for g in groups]
    recipe = {kind: artifacts.recipe_of(kind, name="selected") for kind in ("groups", "pairs")}
    return Batch(
        name="round-000",
        groups=artifacts.commit_rows(at.store, "groups", recipe["groups"], groups, Group),
        pairs=artifacts.commit_rows(at.store, "pairs", recipe["pairs"], pairs, PreferencePair),
    )


def test_relabelled_groups_train_under_their_goals(at: Place, policy: Artifact):
    """Two pairs with scores 8 against 3 and one whose score is missing: four rows, each a training group whose prompt
    ids say its goal, and one pair dropped with its reason. A second call finds both artifacts."""
    batch = batch_of(at, [(3.0, 8.0), (3.0, 8.0), (3.0, None)])
    made = relabel_plainly(batch, SHORT, policy, batch.groups, at=at)
    assert relabel_plainly(batch, SHORT, policy, batch.groups, at=at) == made
    groups = list(artifacts.read_rows(made.groups, Group))
    pairs = list(artifacts.read_rows(made.pairs, PreferencePair))
    reference = [SequenceLogprobs(prompt_id=g.prompt.id, logprobs=(-1.0, -2.0), lengths=(3, 3)) for g in groups]
    trained = training_groups(groups, pairs, reference)
    tokenizer = load_tokenizer(artifacts.fetch_tree(policy))
    said = [tokenizer.decode(list(g.prompt_ids)) for g in trained]
    assert ["Score 8." in text for text in said] == [True, False, True, False]
    assert ["Score 3." in text for text in said] == [False, True, False, True]
    assert [(g.chosen, g.rejected) for g in trained] == [((1,), (0,)), ((0,), (1,))] * 2
    assert [row["reason"] for row in made.pairs.facts["dropped"]] == ["its chosen completion has no score"]
    assert made.pairs.facts["score_map"]["version"] == ScoreMap().version


def test_a_pair_under_another_goal_than_its_prompts_does_not_train(at: Place, policy: Artifact):
    batch = batch_of(at, [(3.0, 8.0)])
    made = relabel_plainly(batch, SHORT, policy, batch.groups, at=at)
    groups = list(artifacts.read_rows(made.groups, Group))
    high, low = artifacts.read_rows(made.pairs, PreferencePair)
    reference = [SequenceLogprobs(prompt_id=g.prompt.id, logprobs=(-1.0, -2.0), lengths=(3, 3)) for g in groups]
    for wrong in (low.condition, None):
        with pytest.raises(ValueError, match="its goal is"):
            training_groups(groups, [high.model_copy(update={"condition": wrong})], reference)


def test_a_fitted_map_is_that_of_the_anchor_and_not_of_the_round(at: Place, policy: Artifact):
    """The anchor's rewards 0 and 2 have mean 1 and sd 1, so 0 and 2 are the goals 4 and 7 whatever the round scored."""
    batch = batch_of(at, [(0.0, 2.0), (-1.0, 3.0)])
    recipe = artifacts.recipe_of("groups", name="anchor")
    anchor = artifacts.commit_rows(at.store, "groups", recipe, [group(9, (0.0, 2.0, None))], Group)
    how = SHORT.model_copy(update={"scale": AffineFit()})
    made = relabel_plainly(batch, how, policy, anchor, at=at)
    told = [pair.condition for pair in artifacts.read_rows(made.pairs, PreferencePair)]
    assert told == ["Score 7.", "Score 4.", "Score 8.5.", "Score 2.5."]


def test_nothing_left_to_train_on_is_said_with_the_way_out(at: Place, policy: Artifact):
    batch = batch_of(at, [(3.0, 30.0)])
    with pytest.raises(UserError, match=r"relabelling left no pair of 1 .* outside the score map's 1 to 10.*widen"):
        relabel_plainly(batch, SHORT, policy, batch.groups, at=at)


def test_trained_policies_are_asked_at_the_serving_goal(at: Place, policy: Artifact):
    prompts = [group(i, ()).prompt for i in range(3)]
    stored = artifacts.commit_rows(at.store, "prompts", artifacts.recipe_of("prompts", name="p"), prompts, Prompt)
    pairs = batch_of(at, [(3.0, 8.0)])
    inputs = Inputs(prompts=stored, held_out=stored, judges=(), held_out_pairs=pairs)
    served = served_plainly(inputs, SHORT, policy, at=at)
    for artifact in (served.prompts, served.held_out):
        rows = list(artifacts.read_rows(artifact, Prompt))
        assert [p.goal and p.goal.text for p in rows] == ["Score 10."] * 3
        assert [p.at_goal(None) for p in rows] == prompts
    assert served.held_out_pairs is not None
    (of_pair,) = artifacts.read_rows(served.held_out_pairs.groups, Group)
    (pair,) = artifacts.read_rows(served.held_out_pairs.pairs, PreferencePair)
    assert of_pair.prompt.goal is not None
    assert (pair.prompt_id, pair.condition, pair.chosen) == (of_pair.prompt.id, "Score 10.", 1)


@pytest.mark.parametrize("beside", [True, False])
def test_an_exported_template_says_the_goal_wherever_it_is_kept(beside, tiny_policy: Path, tmp_path: Path):
    shutil.copytree(tiny_policy, tmp_path / "out")
    template = tmp_path / "out" / "chat_template.jinja"
    if not beside:
        config = tmp_path / "out" / "tokenizer_config.json"
        settings = json.loads(config.read_text()) | {"chat_template": template.read_text()}
        config.write_text(json.dumps(settings))
        template.unlink()
    write_goal_template(tmp_path / "out", SHORT.serving)
    said = load_tokenizer(tmp_path / "out").apply_chat_template(
        [{"role": "user", "content": "Ask"}], add_generation_prompt=True, tokenize=False
    )
    assert said == "<bos><|system|>Score 10.<|user|>Ask<|assistant|>"


def test_goals_that_the_tokenizer_cannot_tell_apart_are_refused(at: Place, tmp_path: Path):
    """The sandbox's vocabulary has words for 2 to 8 and no digit: every number would be the unknown token."""
    tokenizer = word_level(vocabulary(), 64)
    tokenizer.save_pretrained(tmp_path / "p")
    (tmp_path / "p" / "config.json").write_text('{"max_position_embeddings": 64}')
    batch = batch_of(at, [(3.0, 8.0)])
    folder = artifacts.commit_tree(at.store, "policy", artifacts.recipe_of("policy", name="w"), tmp_path / "p")
    said = RewardConditioned(text="Make it {goal}.", placement="user")
    with pytest.raises(UserError, match=r"goals from 'Make it 1.' to 'Make it 10.' the same tokens.*relabel.words"):
        relabel_plainly(batch, said, folder, batch.groups, at=at)
    words = ("not two", "two", "three", "four", "five", "six", "seven", "eight", "better", "Best")
    told = RewardConditioned(**(said.model_dump() | {"scale": ScoreMap(decimals=0), "words": words}))
    made = relabel_plainly(batch, told, folder, batch.groups, at=at)
    assert [p.condition for p in artifacts.read_rows(made.pairs, PreferencePair)] == [
        "Make it eight.",
        "Make it three.",
    ]
