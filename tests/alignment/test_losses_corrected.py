"""Corrected DPO: lengths, weights and a second reference, by hand."""

import math
from dataclasses import replace

import pytest
import torch
from loss_batches import of_logratios, pairs, row, slope

from alignment.losses import DPO, LDDPO, MRPO, RDPO, WPO, DPONorm, preference_loss
from alignment.losses.corrected import virtual_reference


def test_length_normalised_dpo_by_hand():
    """beta = 2: 12/6 - 1/2 = 1.5, softplus(-3) = 0.048587."""
    lp = of_logratios([12.0], [1.0], lengths=([6], [2]))
    assert preference_loss(DPONorm(beta=2), lp).item() == pytest.approx(0.0485874)


def test_a_longer_chosen_completion_teaches_r_dpo_less():
    """The plus sign: beta D + alpha (len_w - len_l) = 0 + 0.1 * 10 = 1, slope -beta sigmoid(-1); else sigmoid(1)."""
    longer = of_logratios([0.0], [0.0], lengths=([15], [5]))
    shorter = of_logratios([0.0], [0.0], lengths=([5], [15]))
    sigmoid_1 = 1 / (1 + math.exp(-1))
    assert slope(RDPO(alpha=0.1), longer) == pytest.approx([-0.1 * (1 - sigmoid_1)])
    assert slope(RDPO(alpha=0.1), shorter) == pytest.approx([-0.1 * sigmoid_1])


def test_ld_dpo_lies_between_shared_tokens_and_dpo():
    """D = 6 nats of which 2 in the shared tokens: alpha 0, 1/2, 1 see 2, 4, 6."""
    lp = of_logratios([6.0], [0.0], shared=of_logratios([2.0], [0.0]))
    for alpha, seen in ((0, 2.0), (0.5, 4.0), (1, 6.0)):
        expected = preference_loss(DPO(), of_logratios([seen], [0.0]))
        torch.testing.assert_close(preference_loss(LDDPO(alpha=alpha), lp), expected)


def test_wpo_weighs_pairs_and_its_weights_are_constants():
    """Confidences of log 2 and -log 8 weigh 2/8 = 1/4; the slope is that of DPO times 1/4."""
    confidence = row([math.log(2)]).requires_grad_()
    lp = of_logratios([0.0], [0.0], chosen_confidence=confidence, rejected_confidence=row([-math.log(8)]))
    assert preference_loss(WPO(), lp).item() == pytest.approx(math.log(2) / 4)
    assert slope(WPO(), lp) == pytest.approx([-0.05 / 4])
    assert not preference_loss(WPO(), lp).requires_grad


def test_mrpo_with_equal_references_is_dpo():
    lp = pairs([-3.0, -9.0], [-5.0, -7.0], [-2.0, -9.5], [-4.0, -7.5])
    same = replace(lp, second=lp)
    torch.testing.assert_close(preference_loss(MRPO(), same), preference_loss(DPO(), lp))


def test_mrpo_by_hand():
    """No clip in reach: first (-10, -12), second (-10.5, -11.5), so alpha = 2/(2 + 1) = 2/3. 1/ref = 2/3 e^10.5 +
    1/3 e^10 for chosen, and so for rejected; the policy is 0 everywhere."""
    first, second = ([-10.0], [-12.0]), ([-10.5], [-11.5])
    lp = pairs([0.0], [0.0], *first, second=pairs([0.0], [0.0], *second))
    alpha = 2 / (3 + 1e-6)
    sides = [
        -math.log(alpha * math.exp(-b) + (1 - alpha) * math.exp(-a))
        for a, b in ((first[0][0], second[0][0]), (first[1][0], second[1][0]))
    ]
    expected = math.log1p(math.exp(-0.1 * (sides[1] - sides[0])))
    assert preference_loss(MRPO(), lp).item() == pytest.approx(expected)


def test_mrpo_clips_the_first_reference_to_within_a_share_of_the_second():
    """-20, -10.5 and -5 against -10 at clip 0.1 count as -11, -10.5 and -9, where alpha = 0 leaves the first alone."""
    clipped = virtual_reference(row([-20.0, -10.5, -5.0]), row([-10.0] * 3), row([0.0] * 3), 0.1)
    assert clipped.tolist() == pytest.approx([-11, -10.5, -9])
