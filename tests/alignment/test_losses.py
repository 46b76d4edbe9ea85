import json
import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from alignment.losses import CDPO, DPO, IPO, RPO, HingeNorm, PairLogprobs, RobustDPO, pair_metrics, preference_loss


def of_margins(*margins: float, requires_grad: bool = False) -> PairLogprobs:
    """Pairs whose policy margin is the number given and whose other three log-probabilities are zero."""
    chosen = torch.tensor(margins, dtype=torch.float64, requires_grad=requires_grad)
    zeros = torch.zeros(len(margins), dtype=torch.float64)
    return PairLogprobs(policy_chosen=chosen, policy_rejected=zeros, ref_chosen=zeros, ref_rejected=zeros)


def of_inputs(inputs: dict[str, list[float]]) -> PairLogprobs:
    return PairLogprobs(
        **{name.removesuffix("_logps"): torch.tensor(v, dtype=torch.float64) for name, v in inputs.items()}
    )


@pytest.fixture(scope="module")
def golden(shared_data):
    return json.loads((shared_data / "golden" / "dpo_family_published.json").read_text())


def test_margin_is_the_difference_of_logratios():
    """(-3 + 5) - (-2.8 + 3.2) = 2 - 0.4 = 1.6 nats: chosen fell by 0.2 and rejected by 1.8."""
    lp = PairLogprobs(
        policy_chosen=torch.tensor([-3.0]),
        policy_rejected=torch.tensor([-5.0]),
        ref_chosen=torch.tensor([-2.8]),
        ref_rejected=torch.tensor([-3.2]),
    )
    assert lp.margin.item() == pytest.approx(1.6)
    assert lp.chosen_logratio.item() == pytest.approx(-0.2)
    assert lp.rejected_logratio.item() == pytest.approx(-1.8)


def test_dpo_at_zero_margin_is_log_two():
    """policy == reference, so margin = 0 and -log sigma(0) = log 2."""
    loss = preference_loss(DPO(beta=0.1), of_margins(0, 0, 0))
    torch.testing.assert_close(loss, torch.full((3,), math.log(2), dtype=torch.float64))


def test_dpo_by_hand():
    """beta = 0.1: margins 10 and -10 give log(1 + e^-1) = 0.313262 and log(1 + e) = 1.313262."""
    loss = preference_loss(DPO(beta=0.1), of_margins(10, -10))
    assert loss.tolist() == pytest.approx([0.31326168751822286, 1.3132616875182228], rel=1e-12)


def test_hinge_norm_by_hand():
    """gamma = 0.05: 1 - 0.05 * (0, 10, 20, 30, -10) = 1, 0.5, 0, (-0.5 -> 0), 1.5."""
    loss = preference_loss(HingeNorm(gamma=0.05), of_margins(0, 10, 20, 30, -10))
    assert loss.tolist() == pytest.approx([1, 0.5, 0, 0, 1.5])


def test_hinge_norm_has_no_gradient_past_its_margin():
    """gamma = 0.05 asks for 20 nats: slope -0.05 at 0, none at 21."""
    lp = of_margins(0, 21, requires_grad=True)
    preference_loss(HingeNorm(), lp).sum().backward()
    assert lp.policy_chosen.grad is not None
    assert lp.policy_chosen.grad.tolist() == [-0.05, 0]


def test_dpo_moves_at_zero_margin():
    """d/dm -log sigma(beta m) = -beta (1 - sigma(0)) = -beta/2, as F.logsigmoid has it."""
    lp = of_margins(0, requires_grad=True)
    preference_loss(DPO(beta=0.3), lp).sum().backward()
    margin = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (-F.logsigmoid(0.3 * margin)).sum().backward()
    assert lp.policy_chosen.grad is not None
    assert margin.grad is not None
    assert lp.policy_chosen.grad.item() == margin.grad.item() == pytest.approx(-0.15)


def test_a_hand_rolled_logsigmoid_would_not_move_at_zero_margin():
    """Why F.logsigmoid: min(z, 0) - log1p(exp(-|z|)) has the right value at 0, but autograd takes the slopes of
    relu and of |z| there to be 0, so the gradient is 0 where -beta/2 = -0.15 is right."""
    margin = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    z = 0.3 * margin
    loss = -(-torch.relu(-z) - torch.log1p(torch.exp(-z.abs())))
    assert loss.item() == pytest.approx(math.log(2))
    (gradient,) = torch.autograd.grad(loss.sum(), margin)
    assert gradient.item() == 0


@pytest.mark.parametrize("loss", [DPO(beta=0.1), DPO(beta=5), HingeNorm(gamma=0.05)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logprobs_stay_finite(loss, dtype):
    """All 16 combinations of 0 and -1e4 nats: margins to 2e4, losses and gradients finite."""
    rows = torch.cartesian_prod(*[torch.tensor([0.0, -1e4], dtype=dtype)] * 4).requires_grad_()
    lp = PairLogprobs(
        policy_chosen=rows[:, 0], policy_rejected=rows[:, 1], ref_chosen=rows[:, 2], ref_rejected=rows[:, 3]
    )
    for p in (None, torch.full((16,), 0.5, dtype=dtype), torch.ones(16, dtype=dtype)):
        losses = preference_loss(loss, lp, p)
        (gradient,) = torch.autograd.grad(losses.sum(), rows)
        assert losses.isfinite().all()
        assert gradient.isfinite().all()


def test_soft_labels_by_hand():
    """beta m = 1, p = 0.9: 0.9 * 0.313262 + 0.1 * 1.313262 = 0.413262; hinge: 0.9 * 0 + 0.1 * 2 = 0.2."""
    p = torch.tensor([0.9], dtype=torch.float64)
    assert preference_loss(DPO(beta=0.1), of_margins(10), p).item() == pytest.approx(0.41326168751822286)
    assert preference_loss(HingeNorm(gamma=0.1), of_margins(10), p).item() == pytest.approx(0.2)


def test_a_soft_label_is_met_where_its_logit_is():
    """p = 0.9 is stationary at beta m = log(0.9 / 0.1) = 2.197225; elsewhere the gradient is beta (sigma(z) - p)."""
    lp = of_margins(math.log(9) / 0.1, 0, requires_grad=True)
    preference_loss(DPO(beta=0.1), lp, torch.full((2,), 0.9, dtype=torch.float64)).sum().backward()
    assert lp.policy_chosen.grad is not None
    assert lp.policy_chosen.grad.tolist() == pytest.approx([0, 0.1 * (0.5 - 0.9)], abs=1e-12)


@pytest.mark.parametrize("loss", [DPO(), HingeNorm()])
def test_certain_labels_are_hard_labels_and_swapping_sides_with_p_changes_nothing(loss):
    lp, swapped = of_margins(-30, -1, 0, 2, 40), of_margins(30, 1, 0, -2, -40)
    p = torch.tensor([0.0, 0.2, 0.5, 0.7, 1.0], dtype=torch.float64)
    torch.testing.assert_close(preference_loss(loss, lp, torch.ones_like(p)), preference_loss(loss, lp))
    torch.testing.assert_close(preference_loss(loss, lp, p), preference_loss(loss, swapped, 1 - p))


@pytest.mark.parametrize("loss", [DPO(), HingeNorm()])
def test_a_constant_added_to_both_reference_logprobs_changes_nothing(loss):
    """The margin depends on ref_chosen - ref_rejected alone."""
    lp = of_margins(-3, 0, 4)
    shifted = PairLogprobs(
        policy_chosen=lp.policy_chosen,
        policy_rejected=lp.policy_rejected,
        ref_chosen=lp.ref_chosen - 7,
        ref_rejected=lp.ref_rejected - 7,
    )
    torch.testing.assert_close(preference_loss(loss, lp), preference_loss(loss, shifted))


def test_pair_metrics_count_ties_half_and_carry_no_gradient():
    """Margins 2, 0, -4: accuracy 1, 1/2, 0. Rewards are log-ratios (2, 0, -4 and 0) times beta = 0.5."""
    seen = pair_metrics(DPO(beta=0.5), of_margins(2, 0, -4, requires_grad=True))
    assert {name: values.tolist() for name, values in seen.items()} == {
        "margin": [2, 0, -4],
        "accuracy": [1, 0.5, 0],
        "chosen_reward": [1, 0, -2],
        "rejected_reward": [0, 0, 0],
    }
    assert not any(values.requires_grad for values in seen.values())


@pytest.mark.parametrize("bad", [0, -0.1, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(bad):
    with pytest.raises(ValidationError):
        DPO(beta=bad)
    with pytest.raises(ValidationError):
        HingeNorm(gamma=bad)


def test_published_torchtune_values(golden):
    case = golden["torchtune"]
    lp, published = of_inputs(case["inputs"]), case["published"]
    assert lp.margin.tolist() == pytest.approx(case["logits_h"])
    dpo, hinge = published["dpo_sigmoid"], published["rso_hinge"]
    assert preference_loss(DPO(beta=dpo["beta"]), lp).tolist() == pytest.approx(dpo["losses"], rel=1e-12)
    assert preference_loss(HingeNorm(gamma=hinge["gamma"]), lp).tolist() == pytest.approx(hinge["losses"], abs=1e-12)


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.5, 1.0])
def test_llamafactory_closed_form_values_and_properties(golden, beta):
    case = golden["llamafactory"]
    lp, expected = of_inputs(case["inputs"]), case["computed_here"][f"beta_{beta:g}"]
    losses = preference_loss(DPO(beta=beta), lp)
    smoothed = preference_loss(DPO(beta=beta), lp, torch.full((4,), 0.9, dtype=torch.float64))
    assert losses.tolist() == pytest.approx(expected["sigmoid"], rel=1e-12)
    assert smoothed.tolist() == pytest.approx(expected["cdpo_label_smoothing_0.1"], rel=1e-12)
    others = {
        "cdpo_label_smoothing_0.1": CDPO(beta=beta, label_smoothing=0.1),
        "robust_label_smoothing_0.1": RobustDPO(beta=beta, flip_rate=0.1),
        "ipo": IPO(beta=beta),
    }
    for name, loss in others.items():
        assert preference_loss(loss, lp).tolist() == pytest.approx(expected[name], rel=1e-12)
    hinge = preference_loss(HingeNorm(gamma=beta), lp).tolist()
    assert hinge == pytest.approx(expected["hinge (SLiC / RSO hinge)"], abs=1e-12)
    assert (losses >= 0).all()
    rewards = pair_metrics(DPO(beta=beta), lp)
    torch.testing.assert_close(rewards["chosen_reward"] - rewards["rejected_reward"], beta * lp.margin)


def test_published_nemo_rl_value(golden):
    """Uniform logits over 16 tokens, two tokens a side: both sums are -2 log 16, so the margin is 0."""
    sums = torch.full((1,), -2 * math.log(16), dtype=torch.float64)
    zeros = torch.zeros(1, dtype=torch.float64)
    lp = PairLogprobs(policy_chosen=sums, policy_rejected=sums, ref_chosen=zeros, ref_rejected=zeros)
    published = golden["nemo_rl"]["published"]
    assert preference_loss(DPO(), lp).item() == pytest.approx(published["preference_loss"], rel=1e-12)
    assert -lp.policy_chosen.item() == pytest.approx(published["sft_loss_sum"], rel=1e-12)
    both = preference_loss(RPO(alpha=0.5, normalise="sum"), lp)
    assert both.item() == pytest.approx(published["preference_plus_half_sft"], rel=1e-12)
