"""Losses of the margin alone: values by hand, stationary points, limits."""

import math

import pytest
import torch
from loss_batches import of_logratios, row, slope
from pydantic import TypeAdapter, ValidationError

from alignment.losses import CDPO, DPO, EXO, IPO, IREPO, SPIN, DiscoPOP, Loss, PairLogprobs, RobustDPO, preference_loss


def test_cdpo_rests_where_its_log_odds_are_met_and_is_the_soft_label_loss():
    """e = 0.1: beta D = log 9 = 2.197225. With p = 0.9, DPO is the same."""
    at_rest = of_logratios([math.log(9) / 0.1], [0.0])
    assert slope(CDPO(), at_rest) == pytest.approx([0], abs=1e-12)
    lp = of_logratios([-30.0, 0.0, 12.0], [0.0, 0.0, 0.0])
    torch.testing.assert_close(
        preference_loss(CDPO(), lp), preference_loss(DPO(), lp, torch.full((3,), 0.9, dtype=torch.float64))
    )
    assert not torch.allclose(preference_loss(CDPO(), lp), preference_loss(DPO(), lp))


def test_robust_dpo_over_flipped_labels_is_the_clean_loss():
    """(1 - e) robust(D) + e robust(-D) = DPO(D), for e = 0.2; and it falls without bound: -e beta D/(1 - 2e)."""
    loss, lp = RobustDPO(flip_rate=0.2), of_logratios([-20.0, 0.0, 5.0], [0.0, 1.0, -3.0])
    flipped = 0.8 * preference_loss(loss, lp) + 0.2 * preference_loss(loss, lp.swapped())
    torch.testing.assert_close(flipped, preference_loss(DPO(), lp))
    assert preference_loss(loss, of_logratios([3000.0], [0.0])).item() == pytest.approx(-0.2 * 300 / 0.6)


def test_ipo_is_least_at_its_target_in_both_normalisations():
    """beta = 0.1: D = 5 nats; per token, 5 nats a token. At zero 1/(4 * 0.01) = 25. 6 tokens of 12 nats in all against
    2 of 1: 12 / 6 - 1 / 2 = 1.5 where the sums say 11."""
    assert preference_loss(IPO(), of_logratios([5.0, 0.0], [0.0, 0.0])).tolist() == pytest.approx([0, 25])
    lp = of_logratios([12.0], [1.0], lengths=([6], [2]))
    assert preference_loss(IPO(), lp).item() == pytest.approx(36)
    assert preference_loss(IPO(normalise="token_mean"), lp).item() == pytest.approx(3.5**2)


def test_exo_by_hand_and_without_a_smoothing_of_zero():
    """At D = 0, q = (1/2, 1/2): log(1/2) - (log 0.9 + log 0.1)/2 = 0.510826. It is 0 where q = (0.9, 0.1)."""
    lp = of_logratios([0.0, math.log(9) / 0.1], [0.0, 0.0])
    assert preference_loss(EXO(label_smoothing=0.1), lp).tolist() == pytest.approx([0.5108256, 0], abs=1e-7)
    with pytest.raises(ValidationError):
        EXO(label_smoothing=0)


def test_discopop_by_hand_and_where_a_product_of_exponentials_would_overflow():
    """z = 0: s = 1/2, (log 2 + 1)/2. z = -1 with tau = 0.5: s = sigmoid(-2) = 0.119203, softplus(1) = 1.313262,
    0.880797 * 1.313262 + 0.119203 * e = 1.480744. z = -100 in float32: exp(100) = inf times sigmoid(-2000) = 0."""
    lp = of_logratios([0.0, -10.0], [0.0, 0.0])
    assert preference_loss(DiscoPOP(tau=0.5), lp).tolist() == pytest.approx([(math.log(2) + 1) / 2, 1.4807442])
    z = torch.tensor([-100.0])
    assert torch.isnan(torch.exp(-z) * torch.sigmoid(z / 0.05)).all()
    wrong = PairLogprobs(torch.tensor([-1000.0]), *(torch.zeros(1) for _ in range(3)))
    assert preference_loss(DiscoPOP(), wrong).item() == pytest.approx(100)


def test_spin_is_at_rest_in_expectation_when_the_policy_is_the_data():
    """Three completions drawn with (0.5, 0.3, 0.2) by data, policy and reference: the nine pairs' gradients cancel.
    They do not where the policy still is uniform."""

    def gradient(policy):
        logits = policy.log().requires_grad_()
        w, l = torch.cartesian_prod(torch.arange(3), torch.arange(3)).T
        ours, reference = logits.log_softmax(0), policy.log()
        losses = preference_loss(SPIN(), PairLogprobs(ours[w], ours[l], reference[w], reference[l]))
        return torch.autograd.grad((data[w] * policy[l] * losses).sum(), logits)[0].abs().max()

    data = row([0.5, 0.3, 0.2])
    assert gradient(data) < 1e-12
    assert gradient(row([1 / 3] * 3)) > 1e-3


def test_irepo_by_hand_and_a_unanimous_vote_stays_finite():
    """beta = 0.1, h = 10: p = 0.75 asks for log 3/0.1 = 10.986123 nats; p = 1 for logit(0.95)/0.1 = 29.444390."""
    p = row([0.75, 1.0])
    lp = of_logratios([10.986122886681098, 29.444389791664403], [0.0, 0.0])
    assert preference_loss(IREPO(votes=10), lp, p).tolist() == pytest.approx([0, 0], abs=1e-9)
    with pytest.raises(ValidationError):
        TypeAdapter(Loss).validate_python({"type": "irepo"})
