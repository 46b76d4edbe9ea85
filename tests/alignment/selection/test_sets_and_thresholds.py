"""RS-DPO's threshold, sets for losses on several samples, and pairs within a layer."""

import math

import numpy as np
import pytest
from made_groups import couples, group, real_answers, select
from pydantic import ValidationError

from alignment.selection import RSDPO, RSO, BestWorst, TopK
from alignment.types import Group


def test_rs_dpo_takes_every_pair_past_the_threshold():
    """eta 0.85 asks for gaps above log(0.85 / 0.15) = 1.7346. Rewards 4, 2, 0.5, 0.3: gaps 2, 3.5, 3.7 from the
    first pass, and 1.7 from 2 to 0.3 does not."""
    assert RSDPO().threshold == pytest.approx(1.7346, abs=1e-4)
    assert couples(select(RSDPO(), group([4.0, 2.0, 0.5, 0.3]))) == [(0, 1), (0, 2), (0, 3)]
    assert len(select(RSDPO(eta=0.84), group([4.0, 2.0, 0.5, 0.3])).pairs) == 4  # log(0.84 / 0.16) = 1.658


def test_eta_of_a_half_takes_every_unequal_pair_once():
    assert couples(select(RSDPO(eta=0.5), group([1.0, 2.0, 2.0]))) == [(1, 0), (2, 0)]


def test_tau_in_units_of_the_prompts_spread_ignores_the_scale():
    rewards = np.random.default_rng(0).normal(size=16)
    relative = RSDPO(tau_unit="prompt_sd")
    assert couples(select(relative, group(rewards.tolist()))) == couples(
        select(relative, group((rewards * 8).tolist()))
    )
    assert len(select(RSDPO(), group((rewards * 8).tolist())).pairs) > len(
        select(RSDPO(), group(rewards.tolist())).pairs
    )
    assert select(relative, group([1.0, 1.0])).pairs == ()


def test_a_bound_on_pairs_keeps_a_random_part_and_reports_how_many_there_were():
    """Rewards 0, 10, ..., 70: all 28 pairs are clear; 5 are kept, and over 60 seeds each pair is kept some time."""
    seen = set()
    for seed in range(60):
        selection = select(RSDPO(max_pairs_per_prompt=5), group([10.0 * i for i in range(8)]), seed=seed)
        assert len(selection.pairs) == 5
        assert selection.metrics["clear_pairs"] == 28
        seen |= set(couples(selection))
    assert len(seen) == 28


def test_prompts_without_a_clear_pair_are_counted_and_say_why():
    selection = select(RSDPO(), group([3.0, 0.0], name="a"), group([1.0, 0.0], name="b"))
    assert selection.metrics["coverage"] == 0.5
    assert [d.reason for d in selection.dropped] == ["no two rewards are far enough apart for eta = 0.85 and tau = 1"]


@pytest.mark.parametrize("bad", [{"eta": 0.4}, {"eta": 1.0}, {"tau": 0}, {"max_pairs_per_prompt": 0}])
def test_bad_thresholds_are_refused(bad):
    """Below a half both orders of a pair would pass, and each would contradict the other."""
    with pytest.raises(ValidationError):
        RSDPO(**bad)


def test_counts_on_real_scores_are_those_of_the_definition(shared_data):
    """300 prompts: every ordered pair of 24 by sigmoid((r_i - r_j) / tau) > eta, written out; identical texts are
    dropped. Higher eta and higher tau give fewer, and the bound of 10 is kept to exactly."""
    groups, rewards_P_G = (rows[:300] for rows in real_answers(shared_data))
    counts = {}
    for eta, tau in ((0.85, 1.0), (0.9, 1.0), (0.85, 1.2)):
        expected = 0
        for g, r in zip(groups, rewards_P_G, strict=True):
            clear = 1 / (1 + np.exp(-(r[:, None] - r[None, :]) / tau)) > eta
            texts = np.array([c.text for c in g.candidates], dtype=object)
            expected += int((clear & (texts[:, None] != texts[None, :])).sum())
        counts[eta, tau] = len(select(RSDPO(eta=eta, tau=tau), *groups).pairs)
        assert counts[eta, tau] == expected
    assert counts[0.85, 1.0] > counts[0.9, 1.0]
    assert counts[0.85, 1.0] > counts[0.85, 1.2]
    bounded = select(RSDPO(max_pairs_per_prompt=10), *groups)
    assert max(np.unique([p.prompt_id for p in bounded.pairs], return_counts=True)[1]) == 10


def test_top_k_sets_are_disjoint_and_their_mean_margin_does_not_depend_on_partners():
    """Top two of 5, 4, 3, 2, 1, 0 against the bottom two: mean margin (5 + 4) / 2 - (0 + 1) / 2 = 4."""
    selection = select(TopK(), group([3.0, 5.0, 0.0, 4.0, 1.0, 2.0]))
    assert {p.chosen for p in selection.pairs} == {1, 3}
    assert {p.rejected for p in selection.pairs} == {2, 4}
    assert np.mean([p.margin for p in selection.pairs]) == 4.0


def test_top_k_against_the_worse_half_at_random_never_shares_a_completion():
    rejected = set()
    for seed in range(60):
        selection = select(TopK(k=2, against="lower_half"), group([float(i) for i in range(9)]), seed=seed)
        assert {p.chosen for p in selection.pairs} == {7, 8}
        rejected |= {p.rejected for p in selection.pairs}
    assert rejected == {0, 1, 2, 3}


def test_a_small_group_gives_smaller_sets():
    assert len(select(TopK(k=4), group([1.0, 2.0, 3.0, None, math.nan])).pairs) == 1
    assert select(TopK(k=4), group([1.0, 2.0, 3.0])).metrics["set_size"] == 1


def tree(rewards_G, shown) -> Group:
    """Candidates by what each was shown: the draft it refines, and the feedback on it."""
    plain = group(rewards_G)
    candidates = tuple(
        c.model_copy(update={"parent": parent, "feedback": feedback})
        for c, (parent, feedback) in zip(plain.candidates, shown, strict=True)
    )
    return plain.model_copy(update={"candidates": candidates})


DRAFT = (None, None)
TWO_LAYERS = [DRAFT, DRAFT, DRAFT, (1, "a"), (1, "a"), (1, "b"), (1, "b")]


def test_within_a_layer_no_draft_meets_a_refinement():
    """Drafts 0, 2.5, 1; refinements with feedback a 5, 8.5 and with b 9, 6: gaps 2.5, 3.5 and 3, where best against
    worst would pair refinement 9 with draft 0, and all refinements of draft 1 together 9 with 5."""
    g = tree([0.0, 2.5, 1.0, 5.0, 8.5, 9.0, 6.0], TWO_LAYERS)
    assert couples(select(BestWorst(), g)) == [(5, 0)]
    assert couples(select(BestWorst(within="layer"), g)) == [(4, 3)]
    assert couples(select(BestWorst(within="layer", pairs_per_prompt=3), g)) == [(4, 3), (5, 6), (1, 0)]


def test_without_refinements_a_layer_is_the_group():
    g = group([0.0, 1.0, 2.0, 3.0, 4.0])
    for pairs in (1, 2):
        within, across = (BestWorst(within=w, pairs_per_prompt=pairs) for w in ("layer", "group"))
        assert select(within, g).pairs == select(across, g).pairs
    assert "within" not in BestWorst().model_dump()


def test_layers_of_one_completion_give_no_pair_and_say_so():
    chain = tree([0.0, 1.0, 2.0], [DRAFT, (0, "a"), (1, "a")])
    (lost,) = select(BestWorst(within="layer"), chain).dropped
    assert lost.reason == "no layer has two completions that may be paired"


@pytest.mark.parametrize("pairing", ["first_round", "tournament"])
def test_what_rejection_sampling_accepted_of_a_tree_meets_within_its_layer(pairing):
    """All seven are accepted (beta = inf). Of layers of 3, 2 and 2 a round makes 1 + 1 + 1 pairs, a knockout one more;
    in the whole group 3 and 6, and some of them cross layers."""
    g = tree([0.0, 2.5, 1.0, 5.0, 8.5, 9.0, 6.0], TWO_LAYERS)
    options = {"beta": math.inf, "num_accepted": 7, "pairing": pairing}
    within = [select(RSO(**options, within="layer"), g, seed=seed) for seed in range(20)]
    assert {len(s.pairs) for s in within} == ({3} if pairing == "first_round" else {4})
    assert all(TWO_LAYERS[i] == TWO_LAYERS[j] for s in within for i, j in couples(s))
    across = [couples(select(RSO(**options), g, seed=seed)) for seed in range(20)]
    assert any(TWO_LAYERS[i] != TWO_LAYERS[j] for pairs in across for i, j in pairs)


def test_acceptance_is_over_the_whole_tree_and_layers_only_say_who_meets():
    """The two best of the tree are refinements of different feedback: both are accepted, and neither has a partner."""
    g = tree([0.0, 2.5, 1.0, 5.0, 8.5, 9.0, 6.0], TWO_LAYERS)
    chosen = RSO(beta=0, num_accepted=2, within="layer")
    selection = select(chosen, g)
    assert selection.metrics["accepted_reward"] == (9.0 + 8.5) / 2
    assert [row.reason for row in selection.dropped] == ["fewer than two candidates of one layer were accepted"]
    plain = group([0.0, 2.5, 1.0, 5.0])
    assert select(RSO(num_accepted=4, within="layer"), plain).pairs == select(RSO(num_accepted=4), plain).pairs


def test_rs_dpo_within_a_layer_takes_the_clear_pairs_of_each():
    """Gaps above 1.73: drafts 2.5 - 0, refinements 8.5 - 5 and 9 - 6; 2.5 - 1 is too near, no other couple counts."""
    g = tree([0.0, 2.5, 1.0, 5.0, 8.5, 9.0, 6.0], TWO_LAYERS)
    assert couples(select(RSDPO(within="layer"), g)) == [(1, 0), (4, 3), (5, 6)]
    assert select(RSDPO(within="layer"), g).metrics["clear_pairs"] == 3


def test_the_scale_of_a_rounds_rewards_is_told_by_its_quantiles():
    """Over both prompts: 0, 1, ..., 10 without the truncated and the missing one, so q10 = 1, q50 = 5, q90 = 9."""
    first = group([0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 99.0], name="a", truncated=[6])
    second = group([1.0, 3.0, 5.0, 7.0, 9.0, None], name="b")
    metrics = select(BestWorst(), first, second).metrics
    assert [metrics[f"reward_q{percent}"] for percent in (10, 50, 90)] == pytest.approx([1, 5, 9])
