import numpy as np
import pytest

from alignment.testbed.claims_prs import (
    TOKENS,
    WITH_PREFERENCE,
    Critic,
    Tree,
    arm,
    gold,
    grow,
    policy,
    refine,
)

RIGHT = policy(WITH_PREFERENCE)


@pytest.mark.parametrize("name", ["prs", "without feedback", "one draft", "prand", "flags all", "copies nothing"])
@pytest.mark.parametrize("n", [8, 17, 128])
def test_every_arm_spends_the_same_number_of_responses(name: str, n: int):
    assert sum(arm(name, n).widths) == n


def test_a_critic_that_flags_nothing_leaves_the_draft():
    """But for the 5% that any refinement rewrites: 1 - 0.05 * (chance of a change), at 200 * 24 * 8 tokens."""
    rng = np.random.default_rng(0)
    drafts = np.ones((200, TOKENS), dtype=bool)
    kept = refine(drafts, RIGHT, Tree((1, 8), Critic(0, 0)), 8, rng).mean()
    expected = 1 - 0.05 * (1 - RIGHT.mean())
    assert abs(kept - expected) < 4 * np.sqrt(0.05 / (200 * TOKENS * 8))


def test_one_feedback_is_shared_by_all_refinements_of_a_draft():
    """Wrong tokens that are not flagged change in 5% of refinements only: most stay wrong in all of 64."""
    drafts = np.zeros((1, TOKENS), dtype=bool)
    certain = np.ones(TOKENS)
    refined = refine(drafts, certain, Tree((1, 64), Critic(0.5, 0)), 64, np.random.default_rng(0))[0]
    share = refined.mean(0)
    assert set(np.round(share).astype(int)) == {0, 1}
    assert ((share == 1) | (share < 0.25)).all()


def test_the_best_of_all_layers_is_kept():
    """Without noise the pick of a deeper tree is never worse than that of its first layer, drawn from one seed."""
    first = gold(grow(Tree((8,)), RIGHT, 300, 0.0, np.random.default_rng(3)))
    whole = gold(grow(Tree((8, 8)), RIGHT, 300, 0.0, np.random.default_rng(3)))
    assert (whole >= first).all()
    assert whole.mean() > first.mean()


@pytest.mark.parametrize("name", ["copies nothing", "flags all"])
def test_refinement_that_ignores_the_draft_is_plain_sampling(name: str):
    """20,000 prompts of each, seed 0; gold of the pick has sd below 1, so the difference has a standard error below
    0.01 and 0.04 a false alarm below 1e-4. PRS gains 0.9 here."""
    levels = [
        gold(grow(arm(a, 16), RIGHT, 20_000, 0.5, np.random.default_rng((0, i)))) for i, a in enumerate([name, "prand"])
    ]
    assert abs(levels[0].mean() - levels[1].mean()) < 0.04
