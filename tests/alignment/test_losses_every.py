"""What holds for every loss: finite at the extremes, soft labels, invariances, and what it asks of a batch."""

from dataclasses import replace

import pytest
import torch
from loss_batches import EVERY_LOSS, EVERY_OTHER_WAY, of_logratios, pairs, row, slope, with_everything
from pydantic import TypeAdapter

from alignment.losses import LDDPO, MRPO, RWR, WPO, Loss, MultiDPO, PairLogprobs, SimPO, pair_metrics, preference_loss

by_type = pytest.mark.parametrize("loss", EVERY_LOSS, ids=lambda loss: loss.type)
SOME = with_everything(
    pairs([-3.0, -9.0, -30.0, -5.0], [-5.0, -7.0, -12.0, -5.0], [-2.0, -9.5, -28.0, -4.0], [-4.0, -7.5, -13.0, -6.0])
)
SOFT = row([0.0, 0.3, 0.5, 1.0])


@pytest.mark.parametrize("loss", [*EVERY_LOSS, *EVERY_OTHER_WAY], ids=repr)
def test_extreme_logprobs_leave_loss_and_gradient_finite(loss):
    """Float32, all 16 combinations of 0 and -1e4 nats: margins to 2e4 either way, and completions that are certain."""
    columns = torch.cartesian_prod(*[torch.tensor([0.0, -1e4])] * 4).T
    policy = columns[:2].clone().requires_grad_()
    lp = with_everything(PairLogprobs(policy[0], policy[1], columns[2], columns[3]))
    labels = (None,) if loss.type == "aot" else (None, torch.ones(16), torch.full((16,), 0.25))
    for p in labels:
        values = preference_loss(loss, lp, p)
        (gradient,) = torch.autograd.grad(values.sum(), policy, retain_graph=True)
        assert values.dtype == torch.float32
        assert values.isfinite().all()
        assert gradient.isfinite().all()


@by_type
def test_a_pair_that_is_certainly_right_costs_less_than_one_that_is_certainly_wrong(loss):
    """Margins of 1e4 and -1e4. Not so for losses that ask for a finite margin, or that aim at a likelihood."""
    lp = with_everything(pairs([-1.0, -1e4], [-1e4, -1.0], [-5e3, -5e3], [-5e3, -5e3]))
    right, wrong = preference_loss(loss, replace(lp, prompts=torch.tensor([0, 1]))).tolist()
    finite_targets = {"ipo", "multi_ipo", "irepo", "sppo", "apo_down"}
    batch_of_its_own = {"aot"}
    if loss.type not in finite_targets | batch_of_its_own:
        assert right < wrong


@by_type
def test_soft_labels_treat_swapped_sides_alike(loss):
    """l(w, l; p) = l(l, w; 1 - p), and certain labels are hard ones."""
    if loss.type == "aot":
        with pytest.raises(ValueError, match="aot sorts the pairs"):
            preference_loss(loss, SOME, SOFT)
        return
    torch.testing.assert_close(preference_loss(loss, SOME, SOFT), preference_loss(loss, SOME.swapped(), 1 - SOFT))
    torch.testing.assert_close(preference_loss(loss, SOME, row([1.0] * 4)), preference_loss(loss, SOME))


@by_type
def test_a_constant_on_both_references_matters_to_losses_of_single_completions_only(loss):
    moved = replace(SOME, ref_chosen=SOME.ref_chosen - 7, ref_rejected=SOME.ref_rejected - 7)
    same = torch.allclose(preference_loss(loss, SOME), preference_loss(loss, moved))
    assert same == (loss.type not in {"dpo_norm", "mrpo", "dpop", "sppo", "nca", "apo_zero", "apo_down", "kto"})


@by_type
def test_one_references_logprob_matters_to_all_losses_but_those_without_a_reference(loss):
    """RSO's hinge-norm against SLiC's hinge, DPO against CPO: one letter of a recipe, two things."""
    moved = replace(SOME, ref_chosen=SOME.ref_chosen - 3)
    same = torch.allclose(preference_loss(loss, SOME), preference_loss(loss, moved))
    assert same == (loss.type in {"hinge", "simpo", "cpo", "orpo", "sft", "rwr"})


@by_type
def test_every_loss_is_read_by_its_type_and_its_defaults_move_a_policy(loss):
    assert TypeAdapter(Loss).validate_python(loss.model_dump()) == loss
    assert any(abs(g) > 0 for g in slope(loss, SOME))


@pytest.mark.parametrize(
    ("loss", "field"),
    [
        (SimPO(), "chosen_lengths"),
        (RWR(), "reward_margin"),
        (MultiDPO(), "prompts"),
        (LDDPO(), "shared"),
        (WPO(), "chosen_confidence"),
        (MRPO(), "second"),
    ],
)
def test_what_a_loss_needs_and_a_batch_lacks_is_named(loss, field):
    with pytest.raises(ValueError, match=f"{loss.type} needs {field}"):
        preference_loss(loss, of_logratios([0.0], [0.0]))


def test_log_probabilities_in_half_precision_are_refused():
    half = torch.zeros(2, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="bfloat16: margins need float32"):
        PairLogprobs(half, half, half, half)
    with pytest.raises(ValueError, match="shapes"):
        PairLogprobs(torch.zeros(2), torch.zeros(2), torch.zeros(2), torch.zeros(1))


@by_type
def test_every_loss_is_watched_alike(loss):
    seen = pair_metrics(loss, SOME)
    assert seen["margin"].tolist() == SOME.margin.tolist()
    assert seen.keys() == {"margin", "accuracy", "chosen_reward", "rejected_reward"}
