"""What has no score or no finite log-probability: counted by every selector, with the reason."""

import math

import numpy as np
import pytest
from made_groups import evidence, group, pair, select

from alignment.selection import APL, RSDPO, RSO, BestWorst, ReferenceGuided, SeRA, TopK

SCORED = [[1.0, 0.0, None, 2.0], [1.0, math.inf, 0.5, math.nan]]
"""Three of eight have no score."""


def two_prompts():
    """Two prompts of four candidates with log-probabilities under all policies, none of them alike."""
    groups = [group(rewards, name=str(i)) for i, rewards in enumerate(SCORED)]
    rng = np.random.default_rng(0)
    sums = {name: rng.normal(-9, 1, size=(2, 4)).tolist() for name in ("current", "previous", "initial")}
    return groups, sums


@pytest.mark.parametrize("selector", [BestWorst(), RSO(), RSDPO(), TopK(), SeRA(), ReferenceGuided()])
def test_every_selector_by_reward_tells_which_share_has_no_score(selector):
    groups, sums = two_prompts()
    assert select(selector, *groups, evidence=evidence(groups, sums)).metrics["missing_rate"] == 3 / 8


def test_apl_tells_it_of_the_couples_it_asked_about_and_looks_at_no_others():
    """One prompt of two, both couples without a score on one side: 1/2. A third prompt is beyond the budget, and was
    never scored at all."""
    groups = [group([1.0, None], name="a"), group([None, 0.0], name="b"), group([0.0, 1.0], name="c")]
    groups[2] = groups[2].model_copy(update={"rewards": {}})
    known = evidence(groups, {"current": [[9.0, 0.0], [8.0, 0.0], [1.0, 0.0]], "initial": [[0.0, 0.0]] * 3})
    selection = select(APL(labels=2), *groups, evidence=known)
    assert selection.metrics["missing_rate"] == 0.5
    assert selection.metrics["unusable"] == 2
    own_oracle = select(APL(labels=2), *groups, evidence=known, oracle=lambda *_: 1.0)
    assert "missing_rate" not in own_oracle.metrics


@pytest.mark.parametrize("answer", [None, 0.5])
def test_an_oracle_that_cannot_say_spends_its_label_and_orders_nothing(answer):
    selection = select(APL(acquire="random_distinct"), group([1.0, 0.0]), oracle=lambda *_: answer)
    assert (selection.pairs, selection.metrics["labels"], selection.metrics["unusable"]) == ((), 1, 1)
    assert [d.reason for d in selection.dropped] == ["the label is a tie or could not be had"]


@pytest.mark.parametrize("selector", [SeRA(bootstrap=0), ReferenceGuided()])
def test_reviewers_pass_on_why_a_prompt_had_no_pair_to_review(selector):
    """Prompt 0 has equal rewards, prompt 1 one score, prompt 2 a pair."""
    groups = [group(r, name=str(i)) for i, r in enumerate([[1.0, 1.0], [None, 2.0], [1.0, 0.0]])]
    known = evidence(groups, {"current": [[1.0, 0.0]] * 3, "initial": [[0.0, 0.0]] * 3})
    reasons = {d.item: d.reason for d in select(selector, *groups, evidence=known).dropped}
    assert reasons[groups[0].prompt.id] == "no pair left of 1: equal rewards"
    assert reasons[groups[1].prompt.id].endswith("and 1 more have no score")


@pytest.mark.parametrize("selector", [SeRA(), APL()])
def test_a_log_probability_that_is_not_finite_does_not_pass_for_training(selector):
    """Both policies agree wherever they say anything; nan - nan is no difference."""
    groups = [group([1.0, 0.0], name=str(i)) for i in range(2)]
    same = [[math.nan, -1.0], [-2.0, -1.0]]
    known = evidence(groups, {"current": same, "initial": same}, [pair(g, 0, 1) for g in groups])
    assert select(selector, *groups, evidence=known).metrics["degenerate"] == 1
