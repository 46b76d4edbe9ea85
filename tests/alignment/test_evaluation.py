import numpy as np
import pytest

from alignment.evaluation import evaluation_metrics, gains_since, pair_accuracy
from alignment.types import Candidate, Goal, Group, Message, PreferencePair, Prompt, SequenceLogprobs


def ask(name: str) -> Prompt:
    return Prompt.of((Message(role="user", content=name),))


def group(name, reward, gold, *, tokens=((1, 2), (3, 4)), truncated=()) -> Group:
    candidates = tuple(
        Candidate(index=i, text=str(t), token_ids=t, finish_reason="length" if i in truncated else "stop")
        for i, t in enumerate(tokens)
    )
    rewards = {"proxy": tuple(reward), "truth": tuple(gold)}
    return Group(prompt=ask(name), prompt_ids=(9,), candidates=candidates, rewards=rewards)


NEW = [
    group("a", (2.0, 1.0), (1.0, 0.0), tokens=((1, 2, 3, 4), (1, 2)), truncated=[0]),
    group("b", (3.0, None), (2.0, 3.0), tokens=((5, 6), (5, 6, 7, 8))),
]
OLD = [group("b", (3.0, 3.0), (1.0, 1.0)), group("a", (1.0, 0.0), (0.0, 0.0))]


def logprobs(groups, *rows) -> list[SequenceLogprobs]:
    return [
        SequenceLogprobs(prompt_id=g.prompt.id, logprobs=r, lengths=(2,) * len(r))
        for g, r in zip(groups, rows, strict=True)
    ]


def measure(new=NEW, old=OLD, *, reward="proxy", gold="truth", policy=None, initial=None, seed=0):
    return evaluation_metrics(
        new,
        old,
        reward=reward,
        gold=gold,
        policy_logprobs=policy,
        initial_logprobs=initial,
        rng=np.random.default_rng(seed),
        resamples=200,
    )


def test_every_metric_by_hand():
    """Prompts are matched by id, whatever their order.

    reward: prompt means 1.5 and 3, so 2.25; old 0.5 and 3, so gain (1 + 0) / 2. Win rate: a = 3.5/4, b = 1/2 (one
    scored candidate ties both), mean 0.6875. gold: 0.5 and 2.5. Lengths 4, 2, 2, 4 against 2. Bigrams: 12 23 34 12
    56 56 67 78, six distinct of eight; old 12 34 twice, two of four, ratio 1.5. One of four truncated, one unscored.
    Agreement: a orders as gold does, b has no scored pair.
    """
    seen = measure()
    expected = {
        "prompts": 2,
        "reward_mean": 2.25,
        "reward_gain": 0.5,
        "gold_mean": 1.5,
        "gold_gain": 1.0,
        "win_rate": 0.6875,
        "length_mean": 3,
        "length_ratio": 1.5,
        "distinct_2": 0.75,
        "distinct_ratio": 1.5,
        "truncated_rate": 0.25,
        "failure_rate": 0.25,
        "gold_failure_rate": 0,
        "reward_agreement": 1,
    }
    assert {name: seen[name] for name in expected} == pytest.approx(expected)
    assert seen["reward_sd"] == pytest.approx(np.std([2, 1, 3]))
    assert seen["kl_initial"] is None


def test_gains_since_the_beginning_are_differences_of_the_same_prompts():
    """As above against OLD: reward gains 1 and 0. Without prompts in common there is no gain."""
    how = {"reward": "proxy", "gold": "truth", "resamples": 200}
    gains = gains_since(NEW, OLD, rng=np.random.default_rng(0), **how)
    assert gains["reward_gain_initial"] == 0.5
    assert gains["gold_gain_initial"] == 1.0
    assert 0 <= gains["reward_gain_initial_low"] <= 0.5 <= gains["reward_gain_initial_high"] <= 1
    assert set(gains_since(NEW, [], rng=np.random.default_rng(0), **how).values()) == {None}


def test_intervals_are_ordered_around_their_mean_and_named_alike():
    seen = measure(policy=logprobs(NEW, (-1.0, -2.0), (-3.0, -4.0)), initial=logprobs(NEW, (-2.0, -2.0), (-3.0, -9.0)))
    assert seen["kl_initial"] == pytest.approx((0.5 + 2.5) / 2)
    means = {"reward": "reward_mean", "gold": "gold_mean"}
    for name in ("reward", "gold", "reward_gain", "gold_gain", "win_rate", "kl_initial"):
        low, mean, high = (seen[key] for key in (f"{name}_low", means.get(name, name), f"{name}_high"))
        assert low <= mean <= high


def test_a_policy_against_itself_wins_half_and_gains_nothing():
    seen = measure(old=NEW[::-1])
    assert seen["win_rate"] == seen["win_rate_low"] == seen["win_rate_high"] == 0.5
    assert seen["reward_gain"] == seen["gold_gain"] == 0
    assert seen["length_ratio"] == seen["distinct_ratio"] == 1
    assert seen["length_controlled_win_rate"] == pytest.approx(0.5, abs=0.01)


def test_what_cannot_be_measured_is_none():
    alone = measure(old=None)
    assert {alone[k] for k in ("win_rate", "win_rate_low", "reward_gain", "length_ratio", "distinct_ratio")} == {None}
    assert alone["reward_mean"] == 2.25
    unscored = measure(reward=None, gold=None)
    missing = ("reward_mean", "gold_mean", "gold_low", "win_rate", "length_controlled_win_rate", "reward_agreement")
    assert {unscored[k] for k in missing} == {None}
    assert (unscored["length_ratio"], unscored["failure_rate"]) == (1.5, 0)
    assert set(alone) == set(unscored) == set(measure())


def test_one_prompt_has_a_mean_and_no_interval():
    seen = measure(NEW[:1], OLD)
    assert (seen["win_rate"], seen["win_rate_low"], seen["win_rate_high"]) == (0.875, None, None)


def test_prompts_without_an_answer_are_left_out_and_counted():
    """Of a, b and an unanswered c: five expected scores, c's and b's second missing. A prompt that only the old
    policy answered counts too: 3 of 6."""
    unanswered = Group(prompt=ask("c"), prompt_ids=(9,), candidates=())
    seen = measure([*NEW, unanswered], OLD)
    assert seen["failure_rate"] == pytest.approx(2 / 5)
    assert seen["reward_mean"] == 2.25
    assert seen["win_rate"] == 0.6875
    more = measure([*NEW, unanswered], [*OLD, group("d", (1.0, 1.0), (1.0, 1.0))])
    assert more["failure_rate"] == pytest.approx(3 / 6)
    nobody = measure([unanswered], [unanswered])
    assert (nobody["failure_rate"], nobody["length_mean"], nobody["win_rate"]) == (1, None, None)


def test_logprobs_of_other_candidates_are_refused():
    with pytest.raises(ValueError, match="1 log-probabilities for 2 candidates"):
        measure(policy=logprobs(NEW, (-1.0,), (-3.0, -4.0)), initial=logprobs(NEW, (-1.0, -1.0), (-3.0, -4.0)))
    with pytest.raises(ValueError, match="0 log-probabilities for 2 candidates"):
        measure(policy=logprobs(NEW[:1], (-1.0, -2.0)), initial=logprobs(NEW, (-1.0, -1.0), (-3.0, -4.0)))


def test_metrics_repeat_with_their_generator():
    assert measure(seed=3) == measure(seed=3)


def test_pair_accuracy_by_hand():
    """Log-ratios (1, 0, 0): the pairs (0, 1), (1, 2) and (2, 0) have margins 1, 0, -1. Over one prompt 1/2; the
    other prompt's only pair is right, so 0.75 over prompts, and margins average (0 + 1) / 2."""
    groups = [group("a", (), (), tokens=()), group("b", (), (), tokens=())]
    a, b = (g.prompt.id for g in groups)
    pairs = [
        PreferencePair(prompt_id=i, chosen=c, rejected=r, source="file")
        for i, c, r in [(a, 0, 1), (a, 1, 2), (a, 2, 0), (b, 0, 1)]
    ]
    policy, reference = (
        logprobs(groups, (-1.0, -2.0, -3.0), (-5.0, -6.0)),
        logprobs(groups, (-2.0, -2.0, -3.0), (-5.0, -5.0)),
    )
    seen = pair_accuracy(pairs, policy, reference, rng=np.random.default_rng(0), resamples=100)
    assert (seen["pair_accuracy"], seen["pair_margin"]) == (0.75, 0.5)
    assert seen["pair_accuracy_low"] <= 0.75 <= seen["pair_accuracy_high"]


def test_a_policy_equal_to_its_reference_orders_pairs_by_chance():
    groups = [group(n, (), (), tokens=()) for n in "abc"]
    pairs = [PreferencePair(prompt_id=g.prompt.id, chosen=1, rejected=0, source="file") for g in groups]
    same = logprobs(groups, (-1.0, -2.0), (-3.0, -1.0), (-4.0, -4.0))
    seen = pair_accuracy(pairs, same, same, rng=np.random.default_rng(0), resamples=100)
    assert (seen["pair_accuracy"], seen["pair_accuracy_low"], seen["pair_margin"]) == (0.5, 0.5, 0)
    assert pair_accuracy([], [], [], rng=np.random.default_rng(0), resamples=9)["pair_accuracy"] is None


def test_a_policy_served_at_a_goal_is_compared_question_by_question():
    """Under the goal every prompt has another id; the comparison and the missing prompts are those of the questions."""
    goal = Goal(text="Score 10.")
    served = [g.model_copy(update={"prompt": g.prompt.at_goal(goal)}) for g in NEW]
    assert measure(served) == measure()
    assert measure(served[:1])["failure_rate"] == measure(NEW[:1])["failure_rate"] == pytest.approx(1 / 3)
