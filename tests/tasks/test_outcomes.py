"""What is read back of a finished cell."""

from pathlib import Path

import pytest

from alignment.testbed import sandbox
from alignment.testbed.sandbox_refine import FINE
from alignment.types import Artifact, Candidate, Goal, Group, RoundManifest
from alignment.worlds import Sandbox
from flows.claims import base_config
from infra import artifacts
from tasks.history import write_manifest
from tasks.outcomes import best_golds, draft_tokens, mean_golds, read_outcome
from tasks.start import identity
from tasks.steps import Place, Stopwatch, made

PROMPTS = sandbox.prompts(Sandbox(), 3)
TEXTS = [pair.chosen for pair in sandbox.labelled_pairs(Sandbox(), 4)]


def group(i: int, rewards, *, golds=(), cut=(), parents=(), goal: Goal | None = None) -> Group:
    """Texts of the world, each with as many tokens as its place plus one."""
    candidates = tuple(
        Candidate(
            index=k, text=TEXTS[k], token_ids=tuple(range(k + 1)), finish_reason="length" if k in cut else "stop",
            parent=dict(parents).get(k),
        )
        for k in range(len(rewards))
    )  # fmt: skip
    scores = {"reward": tuple(rewards), **({"gold": tuple(golds)} if golds else {})}
    return Group(prompt=PROMPTS[i].at_goal(goal), prompt_ids=(1,), candidates=candidates, rewards=scores)


def test_the_selected_completion_is_the_finished_one_with_the_highest_reward():
    """Of the first prompt's three the highest was cut; the second has no reward; of equal ones it is the first."""
    found = best_golds([group(0, (1, 3, 9), cut=(2,)), group(1, (None, None)), group(2, (2, 2))])
    assert found == {
        PROMPTS[0].id: sandbox.gold(PROMPTS[0], TEXTS[1]),
        PROMPTS[2].id: sandbox.gold(PROMPTS[2], TEXTS[0]),
    }


def test_answers_at_a_goal_are_of_the_same_prompt_as_without():
    answered = group(0, (0, 0, 0), golds=(4.0, None, 7.0), goal=Goal(text="Make it two."))
    assert mean_golds([answered, group(1, (0,), golds=(None,))]) == {PROMPTS[0].id: 5.5}


def test_refinements_do_not_count_as_drafts():
    """Three completions of 1, 2 and 3 tokens, the last of which refines the first: mean 1.5."""
    assert draft_tokens([group(0, (0, 0, 0), parents={2: 0})]) == 1.5


@pytest.fixture
def finished(tmp_path: Path):
    """The run of a cell with one round, as far as it is read back."""
    config = base_config(str(tmp_path / "runs"))
    at = Place.of(config, "round-000")
    artifacts.claim_run(config.store, config.run, identity(config))
    facts = {"prompts": 2, "completions": 6, "tokens": 90}
    for step, kind, groups in (
        ("generate", "completions", [group(0, (1, 2, 3)), group(1, (3, 2, 1))]),
        ("score", "groups", [group(0, (1, 2, 3)), group(1, (3, 2, 1))]),
    ):
        recipe = artifacts.recipe_of(kind, name=step)
        artifact = artifacts.commit_rows(config.store, kind, recipe, groups, Group, facts=facts)
        made(at, step, artifact, Stopwatch())
    answers = artifacts.commit_rows(
        config.store,
        "groups",
        artifacts.recipe_of("groups", name="answers"),
        [group(2, (0, 0), golds=(6.0, 7.0))],
        Group,
    )
    policy = Artifact(kind="policy", uri="u", recipe="r", digest="d")
    metrics = {"gold_mean": 6.5, "gold_low": 6.0, "gold_high": 7.0, "kl_initial": 1.25}
    write_manifest(
        at, RoundManifest(round=0, verdict="promoted", reasons=(), policy=policy, evaluation=answers, metrics=metrics)
    )
    return config


def test_a_finished_cell_is_read_back_from_its_run(finished):
    """Two prompts with 90 tokens and six completions between them."""
    found = read_outcome(finished)
    assert (found.tokens, found.completions) == (45.0, 3.0)
    assert found.best == {
        PROMPTS[0].id: sandbox.gold(PROMPTS[0], TEXTS[2]),
        PROMPTS[1].id: sandbox.gold(PROMPTS[1], TEXTS[0]),
    }
    assert found.trained == {PROMPTS[2].id: 6.5}
    assert (found.gold.mean, found.gold.low, found.kl.mean) == (6.5, 6.0, 1.25)
    assert found.seconds >= 0


def test_a_cell_that_is_not_finished_is_not_read(finished):
    with pytest.raises(ValueError, match="round-001"):
        read_outcome(finished.model_copy(update={"rounds": 2}))


def test_gold_of_a_text_needs_what_the_prompt_says_of_itself():
    assert 0 <= sandbox.gold(PROMPTS[0], FINE) <= 10
