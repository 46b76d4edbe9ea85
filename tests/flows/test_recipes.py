"""Recipes: every one that ships is read, and what is wrong in one is told by its dotted path."""

import json
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.sampling import Reflective
from alignment.sampling.texts import Turns
from alignment.testbed.sandbox_refine import ASK_FEEDBACK, ASK_REFINEMENT
from alignment.types import Message, Prompt
from alignment.worlds import Sandbox
from flows.cli import RECIPES
from tasks.forecast import forecast
from tasks.inputs import _read_prompts
from tasks.recipe import load_config, parse_config
from tasks.steps import NotMade

MINIMAL = b"""
policy = "some/model"
prompts = { type = "file", path = "prompts.jsonl" }
reward = { type = "scalar_head", model = "some/reward" }
"""


def config_of(*overrides: str):
    return parse_config(MINIMAL, overrides, where="a.toml", run="a")


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_names_its_run_after_itself(recipe: Path):
    assert load_config(recipe.stem, [], shipped=RECIPES).run == recipe.stem


def test_an_override_keeps_the_default_type_of_what_it_changes():
    config = config_of("--train.loss.beta", "0.05")
    assert config.train.loss.model_dump() == {"type": "dpo", "beta": 0.05}


def test_a_dash_in_an_override_is_an_underscore():
    assert config_of("--train.learning-rate=2e-5").train.learning_rate == 2e-5


def test_a_bare_string_is_a_pretrained_model():
    assert config_of("--policy", "./here").policy.model_dump()["model"] == "./here"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--train.lerning_rate", "1"], "unknown key 'train.lerning_rate'; did you mean 'learning_rate'?"),
        (["--train.loss.betta", "1"], "unknown key 'train.loss.betta'; did you mean 'beta'?"),
        (["--rounds", "0"], "rounds: Input should be greater than 0 (got 0)"),
        (["--select.type", "rso", "--select.num_accepted", "9"], "select.num_accepted = 9 of sampler.n = 8"),
        (["--select.pairs_per_prompt", "5"], "select.pairs_per_prompt = 5 needs 10 candidates, sampler.n = 8"),
        (["--trainer.workers", "32"], "train.groups_per_step = 16 is less than trainer.workers = 32"),
        (["--policy", "{ type = 'scratch', examples = 9 }"], "has nothing to learn from: set world"),
        (["--pairs.path", "x.jsonl"], "rounds = 3 with existing pairs"),
        (["--gate.type", "preference_accuracy"], "needs held-out pairs"),
        (["--select.type", "rso", "--select.beta", "-1"], "select.beta: Input should be greater than or equal to 0"),
        (["--sampler.type", "reflective", "--sampler.n", "1"], "n = 1 completions in depth = 2 layers"),
        (["--sampler.type", "reflectiv"], "sampler: Input tag 'reflectiv' found using 'type' does not match any"),
        (["--sampler.refine.feedbacks", "2"], "unknown key 'sampler.refine'"),
        (["--sampler.type", "greedy", "--reward.type", "pairwise"], "those of two layers cannot be compared"),
        (["--sampler.type", "reflection_control"], "sampler.replace: Field required"),
        (["--sampler.type", "preference_conditioned", "--sampler.n", "0"], "sampler.n: Input should be greater than 0"),
        (["--sampler.decoding.presence_penalty", "3"], "less than or equal to 2 (got 3)"),
        (
            ["--select", "{ type = 'rso', num_accepted = 4, target = 'initial' }", "--sampler.decoding.top_p", "0.9"],
            "select.target = 'initial' corrects for the policy that sampled: it needs sampler.type = 'independent'",
        ),
        (
            ["--select.type", "apl", "--select.acquire", "entropy", "--sampler.decoding.top_k", "40"],
            "select.acquire = 'entropy' estimates entropy from completions of the policy itself",
        ),
        (["--select.type", "top_k", "--select.k", "5"], "select.k = 5 needs 10 candidates, sampler.n = 8"),
        (["--select.type", "sera", "--sampler.n", "1"], "sampler.n = 1: a pair needs two completions"),
        (
            ["--select.type", "rs_dpo", "--select.eta", "0.4"],
            "select.eta: Input should be greater than or equal to 0.5",
        ),
        (["--max_missing", "2"], "max_missing: Input should be less than or equal to 1"),
        (["--rounds"], "--rounds: needs a value"),
        (["--train.loss", "7", "--train.loss.beta", "1"], "'loss' is already 7, not a table"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(overrides: list[str], said: str):
    with pytest.raises(UserError) as error:
        config_of(*overrides)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_composed_recipe_asks_in_the_words_its_policy_was_shown():
    config = load_config("prs_rso_rad", [], shipped=RECIPES)
    assert isinstance(config.sampler, Reflective)
    assert isinstance(config.world, Sandbox)
    assert config.world.refine_share > 0
    texts = config.sampler.refine.texts
    assert isinstance(texts, Turns)
    assert (texts.ask_feedback, texts.ask_refinement) == (ASK_FEEDBACK, ASK_REFINEMENT)


def test_a_sampler_that_was_there_before_has_the_identity_it_had():
    """No field that came later shows in a recipe that does not use it."""
    assert config_of().sampler.model_dump() == {
        "type": "independent",
        "n": 8,
        "decoding": {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 64},
    }


def test_a_plan_counts_feedback_among_the_tokens_at_most():
    """Two rounds of 512 train prompts: 16 completions and one feedback of 64 tokens each; 128 held out, 2 answers."""
    config = load_config("prs_rso_rad", ["--prompts.count", "640", "--evaluate.held_out", "0.2"], shipped=RECIPES)
    assert config.sampler.tokens_at_most == 16 * 64 + 32
    plan = forecast(config, [], NotMade("round-000", "generate"))
    assert plan.tokens_at_most == 2 * (512 * (16 * 64 + 32) + 128 * 4 * 64)


def test_a_plan_counts_what_is_sampled_for_a_refit():
    """Two rounds of 512 train prompts with 8 completions and 128 held out with 2, and one refit of 600 with 4."""
    config = load_config("rlp", ["--evaluate.held_out", "0.2"], shipped=RECIPES)
    assert forecast(config, [], NotMade("start", "policy")).completions_at_most == 2 * (512 * 8 + 128 * 2) + 600 * 4
    assert forecast(config, [], NotMade("round-001", "generate")).completions_at_most == 512 * 8 + 128 * 2 + 600 * 4


def test_the_labels_of_a_recipe_are_as_many_as_its_samples_can_give():
    """All couples of four completions a request; some are equal texts, so there must be more than are asked for."""
    for name in ("quickstart", "ensemble", "rlp", "proxy"):
        config = load_config(name, [], shipped=RECIPES)
        assert config.labels is not None
        rewards = getattr(config.reward, "members", {"reward": config.reward}).values()
        couples = config.labels.prompts * config.labels.n * (config.labels.n - 1) // 2
        assert all(reward.model.examples <= 0.95 * couples for reward in rewards)


def test_a_common_preference_is_stated_where_no_other_is(tmp_path: Path):
    """To the policy and the reward alike, since it is part of the prompt; the authors' reached the policy alone."""
    rows = [{"prompt": "One."}, {"prompt": "Two.", "preference": "I prefer verse."}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prompts, _ = _read_prompts(config_of("--prompts.path", str(tmp_path / "p.jsonl"), "--prompts.preference", "Short."))
    assert [p.preference for p in prompts] == ["Short.", "I prefer verse."]
    assert prompts[0] == Prompt.of((Message(role="user", content="One."),), "Short.", prompts[0].metadata)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        load_config("quikstart", [], shipped=RECIPES)


def test_a_file_that_is_no_toml_says_where():
    with pytest.raises(UserError, match=r"a.toml: not a TOML file: .*line 1"):
        parse_config(b"rounds = = 3", [], where="a.toml", run="a")
