"""Ranking accuracy, drift and margins on held-out pairs, by hand."""

import numpy as np
import pytest

from alignment.ranking import ranking_metrics
from alignment.types import Candidate, Group, Message, PreferencePair, Prompt, SequenceLogprobs


def group(name: str, *rewards: float | None) -> Group:
    candidates = tuple(
        Candidate(index=i, text=str(i), token_ids=(i + 1,), finish_reason="stop") for i in range(len(rewards))
    )
    prompt = Prompt.of((Message(role="user", content=name),))
    return Group(prompt=prompt, prompt_ids=(1,), candidates=candidates, rewards={"reward": rewards})


def logprobs(groups, *rows) -> list[SequenceLogprobs]:
    return [
        SequenceLogprobs(prompt_id=g.prompt.id, logprobs=row, lengths=(1,) * len(row))
        for g, row in zip(groups, rows, strict=True)
    ]


def measured(groups, pairs, policy, initial, reward: str | None = "reward"):
    rows = [
        PreferencePair(prompt_id=groups[g].prompt.id, chosen=chosen, rejected=rejected, source="t")
        for g, chosen, rejected in pairs
    ]
    own, base = logprobs(groups, *policy), logprobs(groups, *initial)
    return ranking_metrics(rows, groups, own, base, reward=reward, rng=np.random.default_rng(0), resamples=100)


def test_displaced_likelihood_shows_where_the_implicit_reward_does_not():
    """One prompt: chosen falls by 2 nats and rejected by 5, so the implicit margin is +3 and right, while chosen, at
    -6 against -5.5, is still the less likely of the two. The other: chosen rises by 1 and leads by 3; margin 1."""
    groups = [group("a", 2.0, 1.0), group("b", 1.0, 1.0)]
    seen = measured(groups, [(0, 0, 1), (1, 0, 1)], [(-6.0, -5.5), (-1.0, -4.0)], [(-4.0, -0.5), (-2.0, -4.0)])
    assert seen["ranking_accuracy"] == 0.5
    assert (seen["chosen_drift"], seen["rejected_drift"], seen["displaced_rate"]) == (-0.5, -2.5, 0.5)
    assert [seen[f"implicit_margin_q{q}"] for q in (10, 50, 90)] == pytest.approx([1.2, 2.0, 2.8])
    assert seen["reward_ranking_accuracy"] == 0.75  # right once, tied once


def test_a_prompt_counts_once_however_many_pairs_it_has():
    """Three right pairs of one prompt and one wrong of another: 1/2."""
    groups = [group("a", 4.0, 3.0, 2.0), group("b", 1.0, 2.0)]
    pairs = [(0, 0, 1), (0, 0, 2), (0, 1, 2), (1, 0, 1)]
    policy = [(-1.0, -2.0, -3.0), (-2.0, -1.0)]
    seen = measured(groups, pairs, policy, policy)
    assert (seen["ranking_accuracy"], seen["reward_ranking_accuracy"]) == (0.5, 0.5)
    assert (seen["chosen_drift"], seen["displaced_rate"], seen["implicit_margin_q50"]) == (0, 0, 0)


def test_a_missing_score_is_counted_and_ranks_nothing():
    groups = [group("a", 2.0, None), group("b", 2.0, 1.0)]
    same = [(-1.0, -2.0)] * 2
    seen = measured(groups, [(0, 0, 1), (1, 0, 1)], same, same)
    assert (seen["reward_ranking_accuracy"], seen["reward_ranking_missing"]) == (1.0, 0.5)
    without = measured(groups, [(0, 0, 1)], same, same, reward=None)
    assert (without["reward_ranking_accuracy"], without["reward_ranking_missing"]) == (None, None)


def test_without_pairs_nothing_was_measured():
    seen = ranking_metrics([], [], [], [], reward="reward", rng=np.random.default_rng(0), resamples=9)
    assert set(seen.values()) == {None}
