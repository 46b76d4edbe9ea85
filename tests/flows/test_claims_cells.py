"""The sandbox's claims as runs: what every cell is configured as."""

import pytest

from alignment.losses import DPO, SFT
from alignment.sampling import Independent, PreferenceConditioned, ReflectionControl, Reflective
from alignment.sampling.texts import Turns
from alignment.selection import RSO, BestWorst, SeRA
from alignment.testbed import sandbox
from alignment.testbed.cells import PLAIN, Cell, configured
from alignment.testbed.claims_sandbox import GOALS, READINGS
from alignment.testbed.outcomes import all_needed
from alignment.testbed.sandbox_grammar import tokens_of
from alignment.testbed.sandbox_refine import ASK_FEEDBACK, ASK_REFINEMENT
from flows.claims import base_config

BASE = base_config("s")


def config_of(cell: Cell):
    return configured(BASE, cell, 13 if cell.arm in PLAIN else None)


@pytest.mark.parametrize("cell", all_needed(READINGS), ids=lambda cell: cell.run)
def test_every_cell_is_a_valid_run_of_its_own_name(cell: Cell):
    config = config_of(cell)
    assert (config.run, config.rounds, config.seed, config.store) == (cell.run, cell.rounds, cell.seed, "s")
    assert isinstance(config.select, {"best_worst": BestWorst, "rso": RSO, "sera": SeRA}[cell.pairs])
    assert isinstance(config.train.loss, SFT if cell.update == "sft" else DPO)
    assert (config.relabel is not None) == (cell.update == "rad")
    assert config.engine.keep_warm


def test_cells_differ_from_the_base_in_what_is_compared_alone():
    """All of them share the models and prompts they begin with, so these are made once."""
    compared = {"run", "rounds", "seed", "sampler", "select", "relabel", "train"}
    for cell in all_needed(READINGS):
        here, base = config_of(cell).model_dump(), BASE.model_dump()
        assert {name for name in here if here[name] != base[name]} <= compared


def test_every_arm_draws_as_it_is_named():
    samplers = {cell.arm: config_of(cell).sampler for cell in all_needed(READINGS)}
    assert isinstance(samplers["prs"], Reflective)
    assert isinstance(samplers["preference_conditioned"], PreferenceConditioned)
    assert isinstance(samplers["independent"], Independent)
    assert samplers["independent"].withhold_preference
    assert isinstance(samplers["no_feedback"], Reflective)
    assert samplers["no_feedback"].refine.feedbacks == 0
    for arm in ("empty_draft", "foreign_draft", "foreign_feedback"):
        assert isinstance(samplers[arm], ReflectionControl)
        assert samplers[arm].replace == arm
        assert samplers[arm].refine == samplers["prs"].refine
    assert {sampler.n for arm, sampler in samplers.items() if arm in PLAIN} == {13}
    assert {sampler.n for arm, sampler in samplers.items() if arm not in PLAIN} == {BASE.sampler.n}


def test_plain_arms_wait_for_the_tokens_of_prs():
    with pytest.raises(ValueError, match="claims-prs-best_worst-dpo-s0 has sampled"):
        configured(BASE, Cell("independent"), None)


def test_a_base_of_other_methods_is_refused():
    with pytest.raises(ValueError, match="PRS, RSO, RAD and DPO"):
        configured(BASE.model_copy(update={"relabel": None}), Cell("prs"), None)


def test_the_policy_has_every_word_in_which_it_is_asked():
    """Its vocabulary is closed: an unknown word would be the same token as any other."""
    assert isinstance(BASE.sampler, Reflective)
    texts = BASE.sampler.refine.texts
    assert isinstance(texts, Turns)
    assert (texts.ask_feedback, texts.ask_refinement) == (ASK_FEEDBACK, ASK_REFINEMENT)
    assert BASE.relabel is not None
    asked = [texts.ask_refinement_unaided, *(BASE.relabel.goal(float(goal)).text for goal in range(1, 11))]
    assert {word for text in asked for word in tokens_of(text)} <= set(sandbox.vocabulary())
    assert len(set(asked)) == 11


def test_a_policy_is_evaluated_at_the_goal_of_its_cell():
    for goal in GOALS:
        config = config_of(Cell("prs", update="rad", goal=goal))
        assert config.relabel is not None
        assert config.relabel.serve == goal
