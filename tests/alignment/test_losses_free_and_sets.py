"""Losses without a reference and losses of sets, by hand."""

import math
from dataclasses import replace

import pytest
import torch
from loss_batches import of_logratios, pairs, row, slope

from alignment.losses import (
    AOT,
    CPO,
    DPO,
    IPO,
    ORPO,
    RPO,
    RWR,
    SFT,
    Hinge,
    MultiDPO,
    MultiIPO,
    PairLogprobs,
    SimPO,
    preference_loss,
)


def test_rpo_is_dpo_plus_nll_in_each_normalisation():
    """NLLs of 8 and 2 over 4 and 2 tokens: sums 8 and 2, per token 2 and 1, over the step's mean of 3: 8/3 and 2/3."""
    lp = pairs([-8.0, -2.0], [-8.0, -2.0], [-8.0, -2.0], [-8.0, -2.0], lengths=([4, 2], [1, 1]))
    for normalise, nll in (("sum", [8, 2]), ("token_mean", [2, 1]), ("step_token_mean", [8 / 3, 2 / 3])):
        values = preference_loss(RPO(alpha=0.5, normalise=normalise), lp).tolist()
        assert values == pytest.approx([math.log(2) + 0.5 * n for n in nll])
    assert preference_loss(SFT(), lp).mean().item() == pytest.approx(10 / 6)
    torch.testing.assert_close(preference_loss(RPO(), lp), preference_loss(RPO(alpha=1, normalise="token_mean"), lp))


def test_simpo_by_hand():
    """2 (-8/4 + 12/3) - 1 = 3: softplus(-3). With sums it would be 2 * 4 - 1."""
    lp = pairs([-8.0], [-12.0], [-50.0], [0.0], lengths=([4], [3]))
    assert preference_loss(SimPO(beta=2, gamma=1), lp).item() == pytest.approx(0.0485874)


def test_slics_hinge_by_hand():
    """1 - 0.05 (-8 + 12) = 0.8, whatever the reference says; past 20 nats nothing."""
    lp = pairs([-8.0, -8.0], [-12.0, -30.0], [-50.0, 0.0], [0.0, -50.0])
    assert preference_loss(Hinge(), lp).tolist() == pytest.approx([0.8, 0])


def test_cpo_by_hand():
    """softplus(-0.1 * 2) + 8/4."""
    lp = pairs([-8.0], [-10.0], [-50.0], [0.0], lengths=([4], [3]))
    assert preference_loss(CPO(), lp).item() == pytest.approx(math.log1p(math.exp(-0.2)) + 2)


def test_orpo_by_hand_and_at_certainty():
    """p = 1/2 against 1/4: odds 1 and 1/3, log ratio log 3: log 2 + 0.1 log(1 + 1/3). A rejected completion of
    probability 1 costs 0.1 log 2^23 = 1.594 and still has a gradient."""
    lp = pairs([-4 * math.log(2)], [-3 * math.log(4)], [0.0], [0.0], lengths=([4], [3]))
    assert preference_loss(ORPO(), lp).item() == pytest.approx(math.log(2) + 0.1 * math.log(4 / 3))
    certain = PairLogprobs(
        torch.tensor([-2.0]), torch.tensor([0.0]), torch.zeros(1), torch.zeros(1),
        chosen_lengths=torch.tensor([2]), rejected_lengths=torch.tensor([2]),
    )  # fmt: skip
    odds = -math.log(math.e - 1)
    assert preference_loss(ORPO(), certain).item() == pytest.approx(1 + 0.1 * (23 * math.log(2) - odds), rel=1e-5)
    assert math.isfinite(slope(ORPO(), certain, "policy_rejected")[0])


def test_rwr_weighs_both_sides_by_their_rewards_share_and_never_overflows():
    """exp(r/tau) shares of a margin of log 3: 3/4 and 1/4 of 8/4 and 9/3. A margin of 1e6 is all on one side."""
    lp = pairs([-8.0], [-9.0], [0.0], [0.0], lengths=([4], [3]), reward_margin=row([math.log(3)]))
    assert preference_loss(RWR(), lp).item() == pytest.approx(0.75 * 2 + 0.25 * 3)
    assert preference_loss(RWR(), replace(lp, reward_margin=row([1e6]))).item() == pytest.approx(2)


def test_multi_sample_losses_see_the_mean_margin_of_a_prompt():
    """Margins 2 and 4 of one prompt and 10 of another: both pairs of the first cost f(3); a single pair is DPO."""
    lp = of_logratios([2.0, 10.0, 4.0], [0.0, 0.0, 0.0], prompts=torch.tensor([0, 1, 0]))
    means = of_logratios([3.0, 10.0, 3.0], [0.0, 0.0, 0.0])
    torch.testing.assert_close(preference_loss(MultiDPO(), lp), preference_loss(DPO(), means))
    torch.testing.assert_close(preference_loss(MultiIPO(), lp), preference_loss(IPO(), means))


def test_aot_matches_equal_ranks():
    """Policy margins (5, 1, 3) against reference margins (0, 2, 1): 5 meets 2, 1 meets 0, 3 meets 1."""
    lp = pairs([5.0, 1.0, 3.0], [0.0] * 3, [0.0, 2.0, 1.0], [0.0] * 3)
    matched = of_logratios([3.0, 1.0, 2.0], [0.0] * 3)
    torch.testing.assert_close(preference_loss(AOT(), lp), preference_loss(DPO(), matched))
