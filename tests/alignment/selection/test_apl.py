"""Active preference learning: which couples are labelled, and that the budget is spent exactly."""

import gzip
import json
import math

import numpy as np
import pytest
from made_groups import couples, evidence, group, select
from pydantic import ValidationError

from alignment.errors import UserError
from alignment.selection import APL, Evidence, needed_policies
from alignment.selection.acquisition import token_distance

ALL = ("certainty", "uncertainty", "entropy", "hybrid", "random_distinct", "random")
WITH_LOGPROBS = ALL[:4]


def prompts(count, size=2):
    return [group([float(i) for i in range(size)], name=f"prompt {k}") for k in range(count)]


def known(groups, ratios, logprobs=None):
    """Implicit rewards ``ratios``; ``logprobs`` under the current policy, -5 where not given."""
    current = logprobs or [[-5.0] * len(r) for r in ratios]
    initial = [[c - a for c, a in zip(cs, rs, strict=True)] for cs, rs in zip(current, ratios, strict=True)]
    return evidence(groups, {"current": current, "initial": initial})


def acquired(selection, groups):
    """Numbers of the prompts that were labelled, in order."""
    number = {g.prompt.id: i for i, g in enumerate(groups)}
    return [number[p.prompt_id] for p in selection.pairs]


def test_certainty_labels_the_largest_differences_and_uncertainty_the_smallest():
    """|differences| 0.5, 3, 0.1, 2: certainty takes prompts 1 and 3, uncertainty 2 and 0, whichever sign they have."""
    groups = prompts(4)
    facts = known(groups, [[0.5, 0.0], [0.0, 3.0], [0.1, 0.0], [-1.0, 1.0]])
    assert acquired(select(APL(labels=2), *groups, evidence=facts), groups) == [1, 3]
    assert acquired(select(APL(labels=2, acquire="uncertainty"), *groups, evidence=facts), groups) == [2, 0]


def test_entropy_takes_the_most_varied_prompts_and_not_the_least():
    """Summed log-probabilities average -4, -20, -9: entropies 4, 20, 9. Keeping the highest mean log-probability
    instead, which is the lowest entropy, would take prompt 0 first."""
    groups = prompts(3)
    facts = known(groups, [[0.1, 0.0]] * 3, [[-2.0, -6.0], [-30.0, -10.0], [-9.0, -9.0]])
    selection = select(APL(labels=2, acquire="entropy"), *groups, evidence=facts)
    assert acquired(selection, groups) == [1, 2]
    assert selection.metrics["entropy"] == 14.5
    assert selection.metrics["entropy_pool"] == pytest.approx(11)


def test_entropy_averages_each_prompts_own_completions():
    """Prompts of -1 and -9 throughout. Averages over a mixed layout of prompts would all be -5, and tie."""
    groups = prompts(4, size=4)
    facts = known(groups, [[0.3, 0.0, 0.0, 0.0]] * 4, [[-1.0] * 4, [-9.0] * 4] * 2)
    for seed in range(10):
        selection = select(APL(labels=2, acquire="entropy"), *groups, seed=seed, evidence=facts)
        assert sorted(acquired(selection, groups)) == [1, 3]


def test_per_token_entropy_is_not_led_by_length():
    """-12 over 6 tokens against -6 over 1: summed, the long one is first; per token the short one (6 against 2)."""
    groups = [group([0.0, 1.0], name=str(n), tokens=[tuple(range(n)), tuple(range(50, 50 + n))]) for n in (6, 1)]
    facts = known(groups, [[0.1, 0.0]] * 2, [[-12.0, -12.0], [-6.0, -6.0]])
    first = [
        acquired(select(APL(labels=1, acquire="entropy", per_token=p), *groups, evidence=facts), groups)
        for p in (False, True)
    ]
    assert first == [[0], [1]]


def test_hybrid_takes_varied_prompts_with_their_most_certain_couple():
    """Entropies 3, 8, 5, two labels: prompts 1 and 2. Of prompt 1's implicit rewards 0, 4, 1 the widest couple is
    (1, 0), of prompt 2's 2, 2.5, -3 it is (1, 2); the other couples are never drawn."""
    groups = prompts(3, size=3)
    ratios = [[9.0, 0.0, 0.0], [0.0, 4.0, 1.0], [2.0, 2.5, -3.0]]
    facts = known(groups, ratios, [[-3.0] * 3, [-8.0] * 3, [-5.0] * 3])
    for seed in range(20):
        selection = select(APL(labels=2, acquire="hybrid"), *groups, seed=seed, evidence=facts)
        assert acquired(selection, groups) == [1, 2]
        assert [set(c) for c in couples(selection)] == [{0, 1}, {1, 2}]


@pytest.mark.parametrize("acquire", ALL)
@pytest.mark.parametrize("labels", [1, 10, 13])
def test_the_budget_is_spent_to_the_label(acquire, labels):
    """13 prompts, every third answer of no use: the oracle is asked exactly ``labels`` times, by every strategy. Whole
    batches of a size that does not divide 13 would leave a remainder unspent."""
    groups = prompts(13, size=4)
    rng = np.random.default_rng(0)
    facts = known(groups, rng.normal(size=(13, 4)).tolist(), rng.normal(-20, 3, size=(13, 4)).tolist())
    asked = []

    def oracle(g, i, j):
        asked.append((g.prompt.id, i, j))
        return None if len(asked) % 3 == 0 else 1.0

    selection = select(APL(acquire=acquire, labels=labels), *groups, evidence=facts, oracle=oracle)
    assert len(asked) == len(set(asked)) == labels == selection.metrics["labels"]
    assert len(selection.pairs) == labels - labels // 3
    assert selection.metrics["unusable"] == labels // 3
    assert len(selection.pairs) + len(selection.dropped) == 13


def test_fewer_couples_than_labels_are_told_and_not_hidden():
    groups = prompts(3)
    selection = select(APL(labels=64, acquire="random_distinct"), *groups)
    assert (selection.metrics["labels"], selection.metrics["short"]) == (3, 1)


@pytest.mark.parametrize("acquire", ["certainty", "uncertainty", "hybrid"])
def test_before_any_training_couples_are_drawn_at_random_and_that_is_recorded(acquire):
    """Current and initial policy agree, so all margins are 0. Over 60 seeds every couple of the one prompt is drawn."""
    groups = prompts(1, size=3)
    facts = known(groups, [[0.0] * 3])
    drawn = set()
    for seed in range(60):
        selection = select(APL(acquire=acquire, labels=1), *groups, seed=seed, evidence=facts)
        assert selection.metrics["degenerate"] == 1
        drawn.add(frozenset(couples(selection)[0]))
    assert len(drawn) == 3


def test_the_degenerate_order_of_prompts_is_random_too():
    groups = prompts(6)
    facts = known(groups, [[0.0, 0.0]] * 6)
    first = {acquired(select(APL(labels=1), *groups, seed=s, evidence=facts), groups)[0] for s in range(80)}
    assert first == set(range(6))


@pytest.mark.parametrize("acquire", ALL[:-1])
def test_completions_that_are_nearly_the_same_are_not_worth_a_label(acquire):
    """Tokens 0..19 and the same with the last one changed differ by 1/20 < 0.1; the third differs by 20/20."""
    near = [tuple(range(20)), (*range(19), 99), tuple(range(30, 50))]
    twins = group([0.0, 1.0], name="twins", tokens=near[:2])
    mixed = group([0.0, 1.0, 2.0], name="mixed", tokens=near)
    facts = known([twins, mixed], [[5.0, 0.0], [5.0, 0.0, 1.0]])
    for seed in range(20):
        selection = select(APL(acquire=acquire, labels=2), twins, mixed, seed=seed, evidence=facts)
        assert [p.prompt_id for p in selection.pairs] == [mixed.prompt.id]
        assert 2 in couples(selection)[0]
        assert [d.reason for d in selection.dropped] == ["no two completions differ by 0.1 of their tokens"]


def test_the_random_baseline_does_waste_labels_on_identical_completions():
    """Two of one text: a label is asked for, their rewards tie, and the budget is spent."""
    g = group([1.0, 1.0], texts=["same", "same"])
    selection = select(APL(acquire="random", labels=1), g)
    assert (selection.metrics["labels"], selection.metrics["unusable"]) == (1, 1)


def test_cut_and_empty_completions_enter_neither_entropy_nor_couples():
    """Candidate 0 was cut at -500 and 1 is empty: the entropy is that of -4 and -6, and they are the couple."""
    g = group([0.0, 0.0, 1.0, 2.0], texts=["cut", "", "a", "b"], truncated=[0])
    facts = known([g], [[9.0, 9.0, 1.0, 0.0]], [[-500.0, -0.1, -4.0, -6.0]])
    for acquire in WITH_LOGPROBS:
        selection = select(APL(acquire=acquire, labels=1), g, evidence=facts)
        assert couples(selection) == [(3, 2)]
        assert selection.metrics["entropy"] == 5


@pytest.mark.parametrize("acquire", WITH_LOGPROBS)
def test_a_log_probability_that_is_not_finite_drops_its_prompt(acquire):
    groups = prompts(2)
    facts = known(groups, [[1.0, 0.0]] * 2, [[math.nan, -1.0], [-2.0, -1.0]])
    selection = select(APL(acquire=acquire), *groups, evidence=facts)
    assert acquired(selection, groups) == [1]
    assert [(d.item, d.reason) for d in selection.dropped] == [(groups[0].prompt.id, "a log-probability is not finite")]


def test_the_oracle_decides_the_order_whichever_way_round_it_is_asked():
    """It prefers the later candidate with probability 0.8, asked either way; p is that of the chosen one."""
    for seed in range(10):
        g = group([0.0, 0.0], name=str(seed))
        selection = select(
            APL(acquire="random_distinct", labels=1), g, seed=seed, oracle=lambda _, i, j: 0.8 if i > j else 0.2
        )
        assert couples(selection) == [(1, 0)]
        assert selection.pairs[0].p == pytest.approx(0.8)


def test_rewards_are_the_labels_and_a_missing_one_is_an_answer_of_no_use():
    assert couples(select(APL(acquire="random_distinct"), group([0.0, 2.0]))) == [(1, 0)]
    assert select(APL(acquire="random_distinct"), group([0.0, None])).metrics["unusable"] == 1


def test_what_is_drawn_does_not_depend_on_the_rounds_order():
    groups = prompts(12, size=4)
    rng = np.random.default_rng(0)
    ratios = dict(zip([g.prompt.id for g in groups], rng.normal(size=(12, 4)).tolist(), strict=True))
    for acquire in ALL:
        there, back = (
            select(APL(acquire=acquire, labels=5), *order, evidence=known(order, [ratios[g.prompt.id] for g in order]))
            for order in (groups, groups[::-1])
        )
        assert there.pairs == back.pairs


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [((), (), 0.0), ((1,), (), 1.0), ((1, 2, 3), (1, 2, 3), 0.0), ((1, 2, 3, 4), (2, 3, 4), 0.25),
     ((1, 2, 3, 4), (1, 9, 3, 8), 0.5), ((1, 2), (3, 4, 5, 6), 1.0), ((1, 2, 3, 4, 5), (5, 1, 2, 3, 4), 0.4)],
)  # fmt: skip
def test_token_distance_by_hand(a, b, distance):
    """One deletion of four; two substitutions; nothing shared; one token moved, which is one deleted and one added."""
    assert token_distance(a, b) == token_distance(b, a) == pytest.approx(distance)


def test_what_is_needed_is_declared_and_its_absence_named():
    assert needed_policies(APL()) == ("current", "initial")
    assert needed_policies(APL(acquire="random")) == needed_policies(APL(acquire="random_distinct")) == ()
    with pytest.raises(UserError, match="log-probabilities under the current policy are needed"):
        select(APL(), group([1.0, 0.0]))


@pytest.mark.parametrize("bad", [{"labels": 0}, {"acquire": "both"}, {"min_distance": 1.5}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        APL(**bad)


def test_budgets_and_orders_on_two_real_reward_models_are_exact(shared_data):
    """200 pairs of JudgeBench: a reward model's score stands for the implicit reward, the benchmark's own label for
    the oracle. 50 labels buy exactly the 50 widest gaps (certainty) or narrowest (uncertainty)."""
    with gzip.open(shared_data / "candidates" / "judgebench_rm_scores.pairs000-199.jsonl.gz", "rt") as rows:
        given = [json.loads(row) for row in rows]
    model = sorted(given[0]["rm_scores_AB"])[0]
    scores = [row["rm_scores_AB"][model] for row in given]
    groups = [group([0.0, 0.0], name=row["pair_id"], texts=[row["response_A"], row["response_B"]]) for row in given]
    better = {g.prompt.id: int(row["label"] == "B>A") for g, row in zip(groups, given, strict=True)}
    gaps = np.abs(np.diff(np.array(scores), axis=1)[:, 0])
    for acquire, worth in (("certainty", -gaps), ("uncertainty", gaps)):
        calls = []

        def oracle(g, i, j, calls=calls):
            calls.append(g.prompt.id)
            return float(i == better[g.prompt.id])

        known_scores = known(groups, scores, [[-1.0, -1.0]] * len(groups))
        selection = select(APL(acquire=acquire, labels=50), *groups, evidence=known_scores, oracle=oracle)
        assert len(calls) == len(set(calls)) == len(selection.pairs) == 50
        assert sorted(worth[acquired(selection, groups)]) == pytest.approx(sorted(worth)[:50])
        assert all(p.chosen == better[p.prompt_id] for p in selection.pairs)


@pytest.mark.parametrize("acquire", WITH_LOGPROBS)
def test_a_round_of_log_probabilities_is_gone_through_a_few_times_and_not_once_for_each_prompt(acquire):
    """Forty prompts: opened anew for each, they would be gone through more than forty times."""
    groups = prompts(40)
    facts = known(groups, [[0.5 * k, 0.0] for k in range(40)])
    passes = []

    class Counted(list):
        def __iter__(self):
            passes.append(1)
            return super().__iter__()

    counted = Evidence({policy: Counted(rows) for policy, rows in facts.logprobs.items()})
    assert len(select(APL(labels=8, acquire=acquire), *groups, evidence=counted).pairs) == 8
    assert len(passes) <= 6
