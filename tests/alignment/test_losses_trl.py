"""The same log-probabilities through the loss code of TRL's ``DPOTrainer``."""

import logging

import pytest
import torch
from trl_batches import TO_1E6, Batch

from alignment.losses import (
    AOT,
    BCO,
    DPO,
    EXO,
    IPO,
    LDDPO,
    NCA,
    RPO,
    SFT,
    SPPO,
    WPO,
    APODown,
    APOZero,
    DiscoPOP,
    DPONorm,
    HingeNorm,
    PairLogprobs,
    RobustDPO,
    preference_loss,
)  # fmt: skip

pytest.importorskip("trl", reason="TRL is not installed: uv pip install trl==1.16.0")

CASES = {
    "sigmoid": (DPO(beta=0.3), {"beta": 0.3}),
    "hinge": (HingeNorm(gamma=0.05), {"beta": 0.05}),
    "ipo": (IPO(beta=0.2, normalise="token_mean"), {"beta": 0.2}),
    "exo_pair": (EXO(beta=0.3, label_smoothing=0.01), {"beta": 0.3, "label_smoothing": 0.01}),
    "nca_pair": (NCA(beta=0.3), {"beta": 0.3}),
    "robust": (RobustDPO(beta=0.3, flip_rate=0.2), {"beta": 0.3, "label_smoothing": 0.2}),
    "bco_pair": (BCO(beta=0.3, shift="zero"), {"beta": 0.3}),
    "sppo_hard": (SPPO(beta=0.01), {"beta": 0.01}),
    "aot": (AOT(beta=0.3, label_smoothing=0.1), {"beta": 0.3, "label_smoothing": 0.1}),
    "aot_unpaired": (AOT(beta=0.3, compare="unpaired"), {"beta": 0.3}),
    "apo_zero": (APOZero(beta=0.3), {"beta": 0.3}),
    "apo_down": (APODown(beta=0.3), {"beta": 0.3}),
    "discopop": (DiscoPOP(beta=0.3), {"beta": 0.3}),
    "sft": (SFT(), {}),
    "sigmoid_norm": (DPONorm(beta=3.0), {"beta": 3.0}),
    "sigmoid,sft": (
        RPO(beta=0.3, alpha=0.5, normalise="step_token_mean"), {"beta": 0.3, "loss_weights": [1.0, 0.5]}
    ),
    "sigmoid, ld_alpha": (LDDPO(beta=0.3, alpha=0.4), {"beta": 0.3, "ld_alpha": 0.4}),
    "sigmoid, use_weighting": (WPO(beta=0.3), {"beta": 0.3, "use_weighting": True}),
}  # fmt: skip


@pytest.fixture(scope="module")
def trainer_of(tiny_policy, tmp_path_factory):
    """A real ``DPOTrainer`` for a loss of TRL's, on a tiny policy and one pair of text."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    logging.getLogger("trl").setLevel("ERROR")
    model = AutoModelForCausalLM.from_pretrained(tiny_policy)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_policy)
    rows = Dataset.from_list([{"prompt": "Write to Anna.", "chosen": "Dear Anna, the garden", "rejected": "No."}])
    out = str(tmp_path_factory.mktemp("trl"))

    def make(loss_type: list[str], **how):
        config = DPOConfig(
            output_dir=out, loss_type=loss_type, precompute_ref_log_probs=True, report_to=[], use_cpu=True, bf16=False,
            gradient_checkpointing=False, disable_tqdm=True, **how,
        )  # fmt: skip
        return DPOTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)

    return make


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_equal_dpo_trainers(trainer_of, name):
    """Six pairs of 1 to 9 tokens, in float64: values and gradients by token to 1e-6. TRL returns the mean."""
    loss, how = CASES[name]
    batch = Batch()
    outputs, inputs = batch.theirs(how.get("ld_alpha"))
    trainer = trainer_of(name.split(", ")[0].split(","), **how)
    theirs = trainer.compute_loss(lambda **_: outputs, inputs)
    ours = preference_loss(loss, batch.ours()).mean()
    torch.testing.assert_close(ours, theirs, **TO_1E6)
    slopes = [torch.autograd.grad(value, batch.policy)[0] * batch.mask for value in (ours, theirs)]
    torch.testing.assert_close(slopes[0], slopes[1], **TO_1E6)
    assert slopes[0].abs().max() > 0


def test_our_logprobs_and_loss_equal_dpo_trainers_on_its_own_batch(trainer_of):
    """The whole of both ways, from token ids to the loss, in float32: a policy against a shifted reference."""
    from alignment.logprobs import Row, row_logprobs

    trainer = trainer_of(["sigmoid"], beta=0.3)
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    inputs["ref_chosen_logps"] = inputs["ref_chosen_logps"] - 1.5
    model = trainer.model.eval()
    theirs = trainer.compute_loss(model, inputs).detach()
    rows = [
        Row(ids[(mask == 1) & (done == 0)].tolist(), ids[done == 1].tolist())
        for ids, mask, done in zip(
            inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"], strict=True
        )
    ]
    with torch.no_grad():
        chosen, rejected = row_logprobs(model, rows).split(1)
    lp = PairLogprobs(chosen, rejected, inputs["ref_chosen_logps"], inputs["ref_rejected_logps"])
    torch.testing.assert_close(preference_loss(DPO(beta=0.3), lp).mean(), theirs, **TO_1E6)
    assert abs(lp.margin.item() - 1.5) < 1e-4
