"""The same log-probabilities through the loss code of TRL's other trainers: CPO, ORPO and KTO.

TRL 1.16 has some losses that have no counterpart here: f-divergences other than reverse KL, AlphaPO's transform, IPO
without a reference, SimPO with a likelihood term or smoothed labels, TPO's likelihood of a third completion, and sums
of losses other than DPO and likelihood.
"""

from collections import defaultdict
from types import MethodType, SimpleNamespace

import pytest
import torch
from loss_batches import row
from trl_batches import PAIRS, TO_1E6, Batch

from alignment.losses import CPO, KTO, ORPO, APOZero, Hinge, PairLogprobs, SimPO, preference_loss

pytest.importorskip("trl", reason="TRL is not installed: uv pip install trl==1.16.0")

CHOSEN, REJECTED, LENGTHS = [-4.0, -20.0, -9.0], [-6.0, -7.0, -9.0], ([4, 10, 9], [3, 7, 6])
CPU = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda values: values)


def cpo_trainer(**how) -> SimpleNamespace:
    """What ``CPOTrainer``'s loss reads of its trainer."""
    return SimpleNamespace(**{"alpha": 0.0, "simpo_gamma": 1.2, "label_smoothing": 0.0, "accelerator": CPU} | how)


@pytest.mark.parametrize(
    ("loss", "loss_type", "beta"),
    [
        (Hinge(gamma=0.2), "hinge", 0.2),
        (CPO(beta=0.2, alpha=0), "sigmoid", 0.2),
        (SimPO(beta=2, gamma=1.2), "simpo", 2),
    ],
)
def test_losses_without_a_reference_equal_trls_cpo_trainer(loss, loss_type, beta):
    from trl.experimental.cpo import CPOTrainer

    chosen, rejected, lengths = row(CHOSEN), row(REJECTED), torch.tensor(LENGTHS)
    averaged = (chosen / lengths[0], rejected / lengths[1]) if loss_type == "simpo" else (chosen, rejected)
    lp = PairLogprobs(chosen, rejected, rejected, chosen, chosen_lengths=lengths[0], rejected_lengths=lengths[1])
    theirs, *_ = CPOTrainer.cpo_loss(cpo_trainer(loss_type=loss_type, beta=beta), *averaged)
    torch.testing.assert_close(preference_loss(loss, lp), theirs, **TO_1E6)


def test_trls_label_smoothing_is_cpos_soft_label():
    """Smoothing by e gives each label probability 1 - e."""
    from trl.experimental.cpo import CPOTrainer

    chosen, rejected = row(CHOSEN), row(REJECTED)
    trainer = cpo_trainer(loss_type="sigmoid", beta=0.2, label_smoothing=0.1)
    theirs, *_ = CPOTrainer.cpo_loss(trainer, chosen, rejected)
    loss, lp = CPO(beta=0.2, alpha=0, normalise="sum"), PairLogprobs(chosen, rejected, chosen, chosen)
    ours = preference_loss(loss, lp, row([0.9] * 3))
    torch.testing.assert_close(ours, theirs, **TO_1E6)


def test_cpo_with_its_likelihood_term_equals_trls_from_logits_on():
    """Random logits over 11 tokens, two prompt tokens, completions of 4 and 2 against 3 and 5 tokens: TRL's NLL is a
    mean over the batch's chosen tokens."""
    from trl.experimental.cpo import CPOTrainer

    rng = torch.Generator().manual_seed(5)
    logits = torch.randn((4, 7, 11), generator=rng, dtype=torch.float64)
    ids = torch.randint(0, 11, (4, 7), generator=rng)
    place, lengths = torch.arange(7), torch.tensor([4, 2, 3, 5])
    labels = ids.masked_fill((place < 2) | (place >= 2 + lengths[:, None]), -100)
    batch = {
        f"{side}_{kind}": rows
        for side, at in (("chosen", slice(0, 2)), ("rejected", slice(2, 4)))
        for kind, rows in (("input_ids", ids[at]), ("attention_mask", ids[at]), ("labels", labels[at]))
    }
    trainer = cpo_trainer(
        loss_type="sigmoid", beta=0.2, cpo_alpha=0.7, is_encoder_decoder=False, pad_token_id=0, aux_loss_enabled=False,
        concatenated_inputs=CPOTrainer.concatenated_inputs, get_batch_logps=CPOTrainer.get_batch_logps,
    )  # fmt: skip
    trainer.concatenated_forward = MethodType(CPOTrainer.concatenated_forward, trainer)
    trainer.cpo_loss = MethodType(CPOTrainer.cpo_loss, trainer)
    theirs, _ = CPOTrainer.get_batch_loss_metrics(trainer, lambda *_, **__: SimpleNamespace(logits=logits), batch)

    tokens = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    chosen, rejected = ((tokens * (labels[:, 1:] != -100)).sum(-1)).split(2)
    lp = PairLogprobs(chosen, rejected, chosen, chosen, chosen_lengths=lengths[:2], rejected_lengths=lengths[2:])
    ours = preference_loss(CPO(beta=0.2, alpha=0.7, normalise="step_token_mean"), lp).mean()
    torch.testing.assert_close(ours, theirs, **TO_1E6)


@pytest.mark.parametrize(
    ("loss_type", "loss", "scale"),
    [("kto", KTO(beta=0.3, wanted=1.2, unwanted=0.7), 1), ("apo_zero_unpaired", APOZero(beta=0.3), 1 / 2)],
)
def test_loss_and_gradient_equal_kto_trainers_with_the_same_baseline(loss_type, loss, scale):
    """Each side of a pair is one of TRL's examples, so its mean is over twice as many. Its baseline is given the mean
    log-ratio of these completions, which is ours, in place of mismatched ones."""
    from trl import KTOTrainer

    batch = Batch(above=2.0)
    outputs, inputs = batch.theirs(None)
    ratios = (batch.policy - batch.reference).sum(-1).detach().flatten()
    assert ratios.mean() > 0
    trainer = SimpleNamespace(
        loss_type=loss_type, beta=0.3, desirable_weight=1.2, undesirable_weight=0.7, accelerator=CPU,
        model=SimpleNamespace(training=True), calculate_KL=loss_type == "kto", precompute_ref_logps=True,
        aux_loss_enabled=False, _compute_kl_logps=lambda model, batch: ratios, _metrics={"train": defaultdict(list)},
        _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    if loss_type != "kto":
        trainer.desirable_weight = trainer.undesirable_weight = 1.0
    references = torch.cat([inputs.pop("ref_chosen_logps"), inputs.pop("ref_rejected_logps")])
    label = torch.tensor([1] * PAIRS + [0] * PAIRS)
    known = {"label": label, "ref_logps": references, "ref_KL_logps": torch.zeros_like(ratios)}
    theirs = KTOTrainer._compute_loss(trainer, lambda **_: outputs, inputs | known, False)
    ours = scale * preference_loss(loss, batch.ours()).mean()
    torch.testing.assert_close(ours, theirs, **TO_1E6)
    slopes = [torch.autograd.grad(value, batch.policy)[0] * batch.mask for value in (ours, theirs)]
    torch.testing.assert_close(slopes[0], slopes[1], **TO_1E6)
    assert slopes[0].abs().max() > 0


def test_orpo_equals_trls_odds_ratio():
    """TRL's loss is NLL minus the mean of what ``odds_ratio_loss`` gives, in float32."""
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected, lengths = row(CHOSEN), row(REJECTED), torch.tensor(LENGTHS)
    orpo = SimpleNamespace(beta=0.25, accelerator=CPU)
    odds, *_ = ORPOTrainer.odds_ratio_loss(orpo, chosen / lengths[0], rejected / lengths[1])
    lp = PairLogprobs(chosen, rejected, rejected, chosen, chosen_lengths=lengths[0], rejected_lengths=lengths[1])
    ours = preference_loss(ORPO(beta=0.25), lp)
    torch.testing.assert_close(ours.float(), (-chosen / lengths[0]).float() - odds, **TO_1E6)
