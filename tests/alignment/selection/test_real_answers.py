"""RSO, and every selector by reward, on 24 models' answers to 805 prompts with a judge's scores."""

import math

import numpy as np
import pytest
from made_groups import real_answers, select

from alignment.selection import RSDPO, RSO, BestWorst, TopK


@pytest.fixture(scope="module")
def answers(shared_data):
    return real_answers(shared_data)


def test_acceptance_rises_with_beta_as_predicted_and_the_accepted_reward_falls(answers):
    """Reward = log-odds of beating one common opponent. The mean weight is told as the acceptance rate, and rises with
    beta; nothing is accepted twice; beta = 0 begins with a best one."""
    groups, rewards_P_G = answers
    rates, means = [], []
    for beta in (0.1, 0.5, 2.0, 8.0):
        rso = RSO(beta=beta, num_accepted=4)
        accepted = [rso.accept(r, np.random.default_rng(i)) for i, r in enumerate(rewards_P_G)]
        assert all(len(a) == len(set(a)) == 4 for a in accepted)
        means.append(np.mean([r[a].mean() for a, r in zip(accepted, rewards_P_G, strict=True)]))
        selection = select(rso, *groups)
        weights_P_G = np.exp((rewards_P_G - rewards_P_G.max(axis=1, keepdims=True)) / beta)
        assert selection.metrics["acceptance_rate"] == pytest.approx(weights_P_G.mean(), rel=1e-9)
        rates.append(selection.metrics["acceptance_rate"])
        assert len(selection.pairs) + len(selection.dropped) >= 805
    assert rates == sorted(rates)
    assert means == sorted(means, reverse=True)
    greedy, rng = RSO(beta=0, num_accepted=4), np.random.default_rng(0)
    assert all(r[greedy.accept(r, rng)[0]] == r.max() for r in rewards_P_G)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 2.0, 8.0])
def test_as_many_pass_a_first_sweep_as_their_weights_sum_to_and_every_best_is_among_them(answers, beta):
    """With room for all 24, those of the first sweep are independent draws of probability w, the best with w = 1: their
    number over all prompts is within 4 standard deviations of the sum of weights."""
    _, rewards_P_G = answers
    rso, rng = RSO(beta=beta, num_accepted=24), np.random.default_rng(1)
    passed = [rso._sweeps(*rso._scores(rewards_G, None), rng)[0] for rewards_G in rewards_P_G]
    assert all(r.max() in r[first] for r, first in zip(rewards_P_G, passed, strict=True))
    best_P_1 = rewards_P_G.max(axis=1, keepdims=True)
    w_P_G = np.exp((rewards_P_G - best_P_1) / beta) if beta else (rewards_P_G == best_P_1).astype(float)
    sd = math.sqrt((w_P_G * (1 - w_P_G)).sum())
    assert abs(sum(map(len, passed)) - w_P_G.sum()) <= 4 * sd


@pytest.mark.parametrize(
    "selector", [BestWorst(pairs_per_prompt=12), RSO(beta=math.inf, num_accepted=24), RSDPO(eta=0.5), TopK(k=12)]
)
def test_an_answer_that_says_nothing_is_in_no_pair_whatever_its_score(answers, selector):
    """The best answer of each of 40 prompts is replaced by blanks, with its score left."""
    groups, rewards_P_G = (rows[:40] for rows in answers)
    best = {g.prompt.id: int(r.argmax()) for g, r in zip(groups, rewards_P_G, strict=True)}

    def emptied(g):
        blank = g.candidates[best[g.prompt.id]].model_copy(update={"text": "  \n"})
        return g.model_copy(update={"candidates": tuple(blank if c.index == blank.index else c for c in g.candidates)})

    selection = select(selector, *map(emptied, groups))
    assert len(selection.pairs) > 40
    assert not any(best[p.prompt_id] in (p.chosen, p.rejected) for p in selection.pairs)
    whole = select(selector, *groups)
    assert any(best[p.prompt_id] == p.chosen for p in whole.pairs)


def test_acceptance_of_real_answers_does_not_depend_on_their_order(answers):
    """The 24 answers of one prompt whose best is unique, in order and reversed: how often each is among 4 accepted of
    4,000 draws differs by less than 0.05 (4 standard errors of a difference are at most 0.045)."""
    _, rewards_P_G = answers
    rewards_G = next(r for r in rewards_P_G if (r == r.max()).sum() == 1)
    rso, rng = RSO(beta=2.0, num_accepted=4), np.random.default_rng(8)
    forward, backward = np.zeros(24), np.zeros(24)
    for _ in range(4_000):
        forward[rso.accept(rewards_G, rng)] += 1
        backward[[23 - i for i in rso.accept(rewards_G[::-1], rng)]] += 1
    assert np.abs(forward - backward).max() / 4_000 < 0.05
