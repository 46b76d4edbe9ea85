"""Ensembles by hand, and five real reward models on their own scales."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from alignment.ensembles import aggregated, by_disagreement, member_margins, standard_of, standardised
from alignment.errors import UserError
from alignment.rewards import Ensemble
from alignment.types import Candidate, Group, Message, PreferencePair, Prompt

VERIFIER = {"type": "verifier", "function": "a:b"}


def test_three_ways_to_make_one_reward_of_two():
    """Members say 1 and 3 of the first completion (mean 2, sd 1, least 1), and both 2 of the second."""
    rewards = np.array([[1.0, 2.0], [3.0, 2.0]])
    assert aggregated(rewards, "mean", 1).tolist() == [2, 2]
    assert aggregated(rewards, "lower_bound", 0.5).tolist() == [1.5, 2]
    assert aggregated(rewards, "worst", 1).tolist() == [1, 2]


@pytest.mark.parametrize("how", ["mean", "lower_bound", "worst"])
def test_a_score_that_one_member_has_not_is_missing(how):
    """Averaged over whoever answered, a completion would win by a failed score."""
    rewards = aggregated(np.array([[1.0, math.nan], [3.0, 9.0]]), how, 1.0)
    assert np.isnan(rewards).tolist() == [False, True]


@pytest.mark.parametrize("rewards", [[2.0, 2.0], []])
def test_a_member_without_spread_is_refused(rewards):
    with pytest.raises(UserError, match="reward member 'a' scor"):
        standard_of("a", rewards)


def test_disputed_pairs_come_first_and_unanimous_ones_last():
    """Three members: pair 0 unanimous with spread, pair 1 two to one by little, pair 2 two to one by much, pair 3
    unanimous without spread."""
    margins = np.array([[1.0, 0.1, 2.0, 1.0], [5.0, 0.1, 2.0, 1.0], [9.0, -0.1, -2.0, 1.0]])
    assert by_disagreement(margins) == [2, 1, 0, 3]


def test_a_pair_without_a_members_score_is_not_ranked():
    prompt = Prompt.of((Message(role="user", content="q"),))
    candidates = tuple(Candidate(index=i, text="", token_ids=(1,), finish_reason="stop") for i in range(2))
    group = Group(prompt=prompt, prompt_ids=(1,), candidates=candidates, rewards={"reward.a": (1.0, None)})
    pair = PreferencePair(prompt_id=prompt.id, chosen=0, rejected=1, source="t")
    with pytest.raises(ValueError, match=r"reward\.a has no score"):
        member_margins([group], [pair], "reward", ["a"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"members": {"a": VERIFIER}}, "at least 2"),
        ({"members": {"a": VERIFIER, "b": VERIFIER}, "standards": {"a": (0, 1)}}, "give one for each"),
        ({"members": {"a": VERIFIER, "b": {"type": "ensemble", "members": {}}}}, "ensemble"),
        ({"members": {"a": VERIFIER, "b": VERIFIER}, "penalty": -1}, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_read(fields, said):
    with pytest.raises(ValidationError, match=said):
        Ensemble.model_validate(fields)


@pytest.fixture
def judgebench(shared_data: Path) -> np.ndarray:
    """(5, 200, 2) rewards of answers A and B by five reward models."""
    path = shared_data / "candidates" / "judgebench_rm_scores.pairs000-199.jsonl.gz"
    rows = [json.loads(line)["rm_scores_AB"] for line in gzip.decompress(path.read_bytes()).splitlines()]
    return np.array([[row[model] for row in rows] for model in sorted(rows[0])])


def pooled(rewards_M_N_2: np.ndarray) -> np.ndarray:
    flat = rewards_M_N_2.reshape(len(rewards_M_N_2), -1)
    standards = [standard_of(str(m), row.tolist()) for m, row in enumerate(flat)]
    return standardised(flat, standards).reshape(rewards_M_N_2.shape)


@pytest.mark.parametrize("model", range(5))
def test_a_member_in_other_units_changes_nothing(judgebench: np.ndarray, model: int):
    """One of the five times 1000 and moved by 7: the same rewards, the same order of acquisition. Without standards,
    that member alone would decide."""
    other = judgebench.copy()
    other[model] = 1000 * other[model] + 7
    ours, theirs = pooled(judgebench), pooled(other)
    for how in ("mean", "lower_bound", "worst"):
        np.testing.assert_allclose(
            aggregated(ours.reshape(5, -1), how, 1.0), aggregated(theirs.reshape(5, -1), how, 1.0), atol=1e-9
        )
    margins, moved = (scores[..., 0] - scores[..., 1] for scores in (ours, theirs))
    assert by_disagreement(margins) == by_disagreement(moved)
    raw = np.sign(other.mean(axis=0)[:, 0] - other.mean(axis=0)[:, 1])
    alone = np.sign(other[model][:, 0] - other[model][:, 1])
    assert (raw == alone).mean() > 0.95


def test_real_pairs_are_asked_about_in_the_order_of_dispute(judgebench: np.ndarray):
    """Votes of five split 3:2, 4:1 or 5:0 (ties between): each class stands whole before the next, and a budget of b
    labels is the first b, each pair once."""
    scores = pooled(judgebench)
    margins = scores[..., 0] - scores[..., 1]
    order = by_disagreement(margins)
    votes = ((np.sign(judgebench[..., 0] - judgebench[..., 1]) + 1) / 2).sum(axis=0)
    outvoted = np.minimum(votes, 5 - votes)[order]
    assert (np.diff(outvoted) <= 0).all()
    assert {0.0, 1.0, 2.0} <= set(outvoted.tolist())
    assert sorted(order) == list(range(200))
