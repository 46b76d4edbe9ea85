import json
import math

import numpy as np
import pytest
from made_groups import couples, group, select
from pydantic import TypeAdapter, ValidationError

from alignment.errors import UserError
from alignment.selection import RSO, BestWorst, Selector, pairable_rewards
from alignment.types import Group, Message, Prompt


def test_best_worst_pairs_the_extremes():
    """Best is 1 (3.0), worst is 2 (-1.0): one pair with margin 4."""
    one = select(BestWorst(), group([1.0, 3.0, -1.0, 0.5]))
    assert couples(one) == [(1, 2)]
    assert one.pairs[0].margin == 4.0
    assert (one.pairs[0].p, one.pairs[0].weight, one.pairs[0].source) == (1.0, 1.0, "best_worst")
    assert one.dropped == ()


def test_best_worst_goes_inward_without_reusing_a_candidate():
    """Order 4, 3, 2, 1, 0: (4, 0), then (3, 1); the middle one has no partner. Three were asked for. Of four, going on
    past the middle would give the same two couples again."""
    assert couples(select(BestWorst(pairs_per_prompt=3), group([0.0, 1.0, 2.0, 3.0, 4.0]))) == [(4, 0), (3, 1)]
    assert couples(select(BestWorst(pairs_per_prompt=4), group([0.0, 1.0, 2.0, 3.0]))) == [(3, 0), (2, 1)]


def test_best_worst_drops_gaps_up_to_the_minimum_and_says_so():
    """Gaps 4 and 1 with min_margin 1: the second pair is dropped, and named by prompt and indices."""
    g = group([0.0, 1.0, 2.0, 4.0])
    selection = select(BestWorst(pairs_per_prompt=2, min_margin=1.0), g)
    assert couples(selection) == [(3, 0)]
    assert [(d.item, d.reason) for d in selection.dropped] == [
        (f"{g.prompt.id}:2,1", "reward gap of at most min_margin = 1")
    ]
    assert selection.metrics["lost_rate"] == 0.5


def test_best_worst_breaks_ties_at_random():
    """Bests 0 and 1 tie: over 400 seeds each is chosen about half the time (within 4 sd, 40)."""
    chosen = [couples(select(BestWorst(), group([1.0, 1.0, 0.0]), seed=s))[0][0] for s in range(400)]
    assert set(chosen) == {0, 1}
    assert abs(chosen.count(0) - 200) < 40


@pytest.mark.parametrize("selector", [BestWorst(pairs_per_prompt=4), RSO()])
def test_equal_rewards_give_no_pair_and_one_reason(selector):
    g = group([0.5] * 8)
    selection = select(selector, g)
    assert selection.pairs == ()
    assert [(d.step, d.item, d.reason) for d in selection.dropped] == [
        ("select", g.prompt.id, "no pair left of 4: equal rewards")
    ]


@pytest.mark.parametrize("selector", [BestWorst(), RSO()])
def test_fewer_than_two_usable_candidates_give_no_pair_and_a_reason_with_counts(selector):
    g = group([1.0, None, 3.0, math.nan], truncated=[2])
    selection = select(selector, g)
    assert selection.pairs == ()
    assert [d.reason for d in selection.dropped] == [
        "a pair needs two candidates: of 4, 1 were cut at the token limit and 2 more have no score"
    ]
    assert selection.metrics == {"prompts": 1.0, "pairs": 0.0, "dropped": 1.0, "missing_rate": 0.5}


@pytest.mark.parametrize("selector", [BestWorst(), RSO()])
def test_a_prompt_that_was_not_answered_is_dropped_with_a_reason(selector):
    empty = Group(prompt=Prompt.of((Message(role="user", content="?"),)), prompt_ids=(1,), candidates=())
    assert [d.item for d in select(selector, empty).dropped] == [empty.prompt.id]
    assert select(selector).metrics == {"prompts": 0.0, "pairs": 0.0, "dropped": 0.0}


@pytest.mark.parametrize("selector", [BestWorst(), RSO(beta=0, num_accepted=4)])
def test_identical_completions_are_dropped_after_sampling(selector):
    """Scored twice with a little noise, the same text would otherwise beat itself."""
    selection = select(selector, group([1.0, 1.1], texts=["same", "same"]))
    assert selection.pairs == ()
    assert [d.reason for d in selection.dropped] == ["no pair left of 1: identical completions"]


@pytest.mark.parametrize("selector", [BestWorst(pairs_per_prompt=2), RSO(beta=0.5, num_accepted=4)])
def test_a_truncated_top_score_is_neither_chosen_nor_the_maximum(selector):
    """Candidate 3 scores 100 but was cut: with it as the maximum the others would pass with exp(-200)."""
    for seed in range(20):
        selection = select(selector, group([1.0, 0.9, 0.8, 100.0, 0.7], truncated=[3]), seed=seed)
        assert 3 not in {i for pair in couples(selection) for i in pair}
        assert len(selection.pairs) == 2
    assert np.isnan(pairable_rewards(group([1.0, 100.0], truncated=[1]), "proxy")).tolist() == [False, True]


@pytest.mark.parametrize("selector", [BestWorst(pairs_per_prompt=2), RSO(beta=0.5, num_accepted=4)])
def test_an_empty_completion_is_never_chosen_and_never_the_maximum(selector):
    """Candidate 3 scores 100 and says nothing; blank counts as nothing."""
    for text in ("", " \n"):
        g = group([1.0, 0.9, 0.8, 100.0, 0.7], texts=["a", "b", "c", text, "d"])
        selection = select(selector, g)
        assert 3 not in {i for pair in couples(selection) for i in pair}
        assert len(selection.pairs) == 2
    lone = select(selector, group([1.0, 2.0], texts=["a", ""]))
    assert [d.reason for d in lone.dropped] == [
        "a pair needs two candidates: of 2, 0 were cut at the token limit, 1 are empty and 0 more have no score"
    ]


@pytest.mark.parametrize("selector", [BestWorst(pairs_per_prompt=2), RSO(num_accepted=4)])
def test_what_a_prompt_yields_does_not_depend_on_its_neighbours(selector):
    rng = np.random.default_rng(0)
    groups = [group(rng.normal(size=8).tolist(), name=f"prompt {i}") for i in range(12)]
    forward, backward = select(selector, *groups), select(selector, *groups[::-1])
    assert sorted(forward.pairs, key=str) == sorted(backward.pairs, key=str)
    alone = select(selector, groups[7])
    assert list(alone.pairs) == [p for p in forward.pairs if p.prompt_id == groups[7].prompt.id]
    assert select(selector, *groups, seed=1).pairs != forward.pairs or isinstance(selector, BestWorst)


@pytest.mark.parametrize("selector", [BestWorst(), RSO()])
def test_an_unknown_reward_name_says_which_there_are(selector):
    with pytest.raises(UserError, match=r"rewards \['proxy'\] and none named 'judge'"):
        selector([group([1.0, 2.0])], np.random.default_rng(0), reward="judge")


def test_two_groups_of_one_prompt_are_refused():
    with pytest.raises(ValueError, match="share a prompt id"):
        select(BestWorst(), group([1.0, 2.0]), group([3.0, 4.0]))


def test_rso_pairs_are_disjoint_and_ordered_by_reward():
    """8 of 64 accepted make 4 pairs of 8 different candidates, chosen always the higher."""
    rewards = np.random.default_rng(1).normal(size=64)
    selection = select(RSO(), group(rewards.tolist()))
    members = [i for pair in couples(selection) for i in pair]
    assert len(selection.pairs) == 4
    assert len(set(members)) == 8
    assert all(p.margin == rewards[p.chosen] - rewards[p.rejected] > 0 for p in selection.pairs)


def test_rso_pairs_the_accepted_at_random():
    """beta = 0 accepts the top 4, best first. Paired in that order the best would always meet the second best."""
    met = {couples(select(RSO(beta=0, num_accepted=4), group([4.0, 3.0, 2.0, 1.0, 0.0]), seed=s))[0] for s in range(60)}
    assert {pair for pair in met if 0 in pair} == {(0, 1), (0, 2), (0, 3)}


def test_rso_leaves_one_of_an_odd_number_out_at_random():
    """Three accepted of three make one pair; over 60 seeds each of the three is left out some time."""
    left_out = set()
    for seed in range(60):
        (pair,) = couples(select(RSO(beta=math.inf, num_accepted=3), group([1.0, 2.0, 3.0]), seed=seed))
        left_out |= {0, 1, 2} - set(pair)
    assert left_out == {0, 1, 2}


def test_rso_returns_what_exists_when_fewer_are_valid_than_wanted():
    rng = np.random.default_rng(0)
    assert sorted(RSO(num_accepted=8).accept([1.0, None, 0.0, math.nan, math.inf, -math.inf], rng)) == [0, 2]
    assert RSO().accept([], rng) == RSO().accept([None, math.nan], rng) == []
    assert RSO(beta_unit="prompt_sd").accept([None], rng) == []
    assert select(RSO(num_accepted=8), group([1.0, 0.0])).metrics["short"] == 1.0


def test_rso_reports_its_health_by_hand():
    """beta = 1, rewards (log 4, log 2, 0, 0): w = (1, 1/2, 1/4, 1/4), sum 2, mean 1/2, ess 4 / 1.375."""
    rewards = [math.log(4), math.log(2), 0.0, 0.0]
    metrics = select(RSO(beta=1, num_accepted=4), group(rewards)).metrics
    assert metrics["sum_weights"] == pytest.approx(2)
    assert metrics["acceptance_rate"] == pytest.approx(0.5)
    assert metrics["ess"] == pytest.approx(4 / 1.375)
    assert metrics["reward_sd"] == pytest.approx(np.std(rewards))
    assert (metrics["accepted"], metrics["short"]) == (4, 0)
    assert 1 <= metrics["sweeps"] <= 4


def test_rso_expects_to_accept_the_sum_of_weights_in_its_first_sweep():
    """w = (1, 1/2, 1/4, 1/4), so 2 of 4 on average, variance 1/4 + 2 * 3/16 = 5/8. n = 20,000, 4 sd = 0.022."""
    rso, rng = RSO(beta=1, num_accepted=4), np.random.default_rng(4)
    rewards_G = np.log([4.0, 2.0, 1.0, 1.0])
    counts = [len(rso._sweeps(*rso._scores(rewards_G, None), rng)[0]) for _ in range(20_000)]
    assert abs(np.mean(counts) - 2) < 4 * math.sqrt(5 / 8 / 20_000)


def test_rso_in_units_of_the_prompts_sd_ignores_the_rewards_scale():
    """beta = 0.5 sd: rewards times 8 are accepted alike, which beta in reward units does not do."""
    rewards = np.random.default_rng(3).normal(size=16)
    relative, absolute = RSO(beta_unit="prompt_sd", num_accepted=4), RSO(num_accepted=4)
    draws = [(relative.accept(rewards, np.random.default_rng(s)), s) for s in range(40)]
    assert all(relative.accept(rewards * 8, np.random.default_rng(s)) == draw for draw, s in draws)
    assert any(
        absolute.accept(rewards * 8, np.random.default_rng(s)) != absolute.accept(rewards, np.random.default_rng(s))
        for s in range(40)
    )
    assert sorted(relative.accept([2.0] * 4, np.random.default_rng(0))) == [0, 1, 2, 3]


def test_selection_leaves_the_rewards_alone():
    rewards = np.array([0.1, np.nan, 0.3])
    RSO().accept(rewards, np.random.default_rng(0))
    assert np.array_equal(rewards, [0.1, np.nan, 0.3], equal_nan=True)


@pytest.mark.parametrize(
    "bad", [{"beta": -0.1}, {"beta": math.nan}, {"num_accepted": 0}, {"beta_unit": "sigma"}, {"gamma": 0.05}]
)
def test_bad_rso_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        RSO(**bad)


@pytest.mark.parametrize("selector", [BestWorst(), RSO(), RSO(beta=math.inf)])
def test_a_selector_survives_json(selector):
    """JSON has no infinity, so an infinite beta travels as text."""
    plain = selector.model_dump(mode="json")
    assert TypeAdapter(Selector).validate_json(json.dumps(plain, allow_nan=False)) == selector


def test_rewards_of_several_groups_at_once_are_refused():
    with pytest.raises(ValueError, match=r"shape \(G,\), not \(2, 2\)"):
        RSO().accept(np.zeros((2, 2)), np.random.default_rng(0))
