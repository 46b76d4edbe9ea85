"""Losses of single log-ratios: values by hand, stationary points, baselines."""

import math

import pytest
import torch
from loss_batches import of_logratios, row, slope

from alignment.losses import BCO, DPO, DPOP, KTO, NCA, SPPO, APODown, APOZero, preference_loss


def test_dpop_holds_a_falling_chosen_completion():
    """a_w = -1, a_l = -3: D = 2 less 5 * 1 = -3, softplus(0.3) = 0.854355. Above the reference it is DPO."""
    assert preference_loss(DPOP(), of_logratios([-1.0], [-3.0])).item() == pytest.approx(0.8543552)
    rising = of_logratios([1.0], [-3.0])
    torch.testing.assert_close(preference_loss(DPOP(), rising), preference_loss(DPO(), rising))


def test_sppo_is_zero_at_its_targets_hard_and_soft():
    """beta = 0.01: +-50 nats for P = 1, +-25 for P = 0.75."""
    lp = of_logratios([50.0, 25.0], [-50.0, -25.0])
    assert preference_loss(SPPO(beta=0.01), lp).tolist()[0] == 0
    assert preference_loss(SPPO(beta=0.01), lp, row([1.0, 0.75])).tolist() == [0, 0]


def test_nca_rests_where_the_chosen_sigmoid_is_two_thirds():
    """-(1 - s) + s/2 = 0 at s = 2/3, so beta a_w = log 2."""
    assert slope(NCA(), of_logratios([math.log(2) / 0.1], [0.0])) == pytest.approx([0], abs=1e-12)


def test_apo_by_hand():
    """beta a_w = 1, beta a_l = -1: zero 1 - 0.731059 + 0.268941; down 0.731059 + 1 - sigmoid(2)."""
    lp = of_logratios([10.0], [-10.0])
    assert preference_loss(APOZero(), lp).item() == pytest.approx(0.5378828)
    assert preference_loss(APODown(), lp).item() == pytest.approx(0.7310586 + 0.1192029)


def test_bco_classifies_each_side_and_is_not_a_loss_of_the_difference():
    """beta a_w = 2, beta a_l = 1: softplus(-2) + softplus(1) = 1.440190; with the mean reward 1.5 taken off both,
    2 softplus(-0.5) = 0.948154."""
    lp = of_logratios([20.0], [10.0])
    assert preference_loss(BCO(shift="zero"), lp).item() == pytest.approx(1.4401897)
    assert preference_loss(BCO(), lp).item() == pytest.approx(0.9481538)


def test_kto_by_hand_with_the_steps_baseline():
    """a = (30, 10, -10, -20): z = 2.5, beta = 0.1: pair 1: (1 - s(2.75) + 2 (1 - s(1.25)))/2, with s the sigmoid."""
    lp = of_logratios([30.0, 10.0], [-10.0, -20.0])

    def s(z):
        return 1 / (1 + math.exp(-z))

    expected = [(s(-2.75) + 2 * s(-1.25)) / 2, (s(-0.75) + 2 * s(-2.25)) / 2]
    assert preference_loss(KTO(unwanted=2), lp).tolist() == pytest.approx(expected)
    below = of_logratios([-30.0], [-10.0])  # a mean of -20 counts as 0
    assert preference_loss(KTO(), below).item() == pytest.approx((s(3) + s(-1)) / 2)


def test_ktos_baseline_carries_no_gradient():
    """d/da_w of wanted (1 - sigmoid(beta (a_w - z))) with z = 1/2 held: -2 beta s (1 - s) at s = sigmoid(0.05), halved
    for two sides. A moving z would take a quarter of it away; with equal weights both sides would hide that."""
    s = 1 / (1 + math.exp(-0.05))
    assert slope(KTO(wanted=2), of_logratios([1.0], [0.0])) == pytest.approx([-0.1 * s * (1 - s)])
