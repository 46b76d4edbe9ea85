"""Recipes: every one that ships is read, and what is wrong in one is told by its dotted path."""

from pathlib import Path

import pytest

from alignment.errors import UserError
from flows.cli import RECIPES
from tasks.recipe import load_config, parse_config

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
        (["--rounds"], "--rounds: needs a value"),
        (["--train.loss", "7", "--train.loss.beta", "1"], "'loss' is already 7, not a table"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(overrides: list[str], said: str):
    with pytest.raises(UserError) as error:
        config_of(*overrides)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        load_config("quikstart", [], shipped=RECIPES)


def test_a_file_that_is_no_toml_says_where():
    with pytest.raises(UserError, match=r"a.toml: not a TOML file: .*line 1"):
        parse_config(b"rounds = = 3", [], where="a.toml", run="a")
