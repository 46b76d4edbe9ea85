"""The same log-probabilities through TRL's own loss code."""

import logging
from types import SimpleNamespace

import pytest
import torch
from loss_batches import row

from alignment.losses import (
    AOT,
    BCO,
    CPO,
    DPO,
    EXO,
    IPO,
    LDDPO,
    NCA,
    ORPO,
    RPO,
    SFT,
    SPPO,
    WPO,
    APODown,
    APOZero,
    DiscoPOP,
    DPONorm,
    Hinge,
    HingeNorm,
    PairLogprobs,
    RobustDPO,
    SimPO,
    preference_loss,
)  # fmt: skip

pytest.importorskip("trl", reason="TRL is not installed: uv pip install trl==1.16.0")

PAIRS, PROMPT, LONGEST = 6, 3, 9
TO_1E6 = {"rtol": 1e-6, "atol": 1e-6}
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


class Batch:
    """Random token log-probabilities of ragged completions, as TRL's model output and as ours."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(3)
        self.lengths = torch.randint(1, LONGEST + 1, (2, PAIRS), generator=rng)
        self.mask = torch.arange(LONGEST) < self.lengths[..., None]
        policy, reference = (self._tokens(rng) for _ in range(2))
        self.reference = reference
        self.log_sum_sq = self._tokens(rng)
        self.policy = policy.requires_grad_()

    def _tokens(self, rng: torch.Generator) -> torch.Tensor:
        return -3 * torch.rand((2, PAIRS, LONGEST), generator=rng, dtype=torch.float64) * self.mask

    def ours(self) -> PairLogprobs:
        within = torch.arange(LONGEST) < self.lengths.min(dim=0).values[:, None]
        confidence = ((self.policy - self.log_sum_sq) * self.mask).sum(-1) / self.lengths
        return PairLogprobs(
            *self.policy.sum(-1),
            *self.reference.sum(-1),
            chosen_lengths=self.lengths[0],
            rejected_lengths=self.lengths[1],
            chosen_confidence=confidence[0],
            rejected_confidence=confidence[1],
            shared=PairLogprobs(*(self.policy * within).sum(-1), *(self.reference * within).sum(-1)),
        )

    def theirs(self, ld_alpha: float | None) -> tuple[SimpleNamespace, dict[str, torch.Tensor]]:
        """What the model gives, and what the collator gives: chosen rows first, a prompt of three tokens before all."""
        rows, width = 2 * PAIRS, PROMPT + LONGEST
        mask = torch.zeros((rows, width), dtype=torch.long)
        mask[:, PROMPT:] = self.mask.flatten(0, 1)
        within = torch.arange(LONGEST) < self.lengths.min(dim=0).values[:, None]
        counted = within + (1.0 if ld_alpha is None else ld_alpha) * ~within
        reference = (self.reference * counted).sum(-1)

        def padded(tokens: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(tokens.flatten(0, 1), (PROMPT - 1, 0))

        given = padded(self.policy)
        unused = torch.zeros_like(given).detach()
        outputs = SimpleNamespace(
            log_probs=given, log_sum_sq_probs=padded(self.log_sum_sq), entropy=unused, mean_logits=unused,
            is_top1=unused.bool(),
        )  # fmt: skip
        ids = torch.ones_like(mask)
        inputs = {"input_ids": ids, "attention_mask": ids, "completion_mask": mask}
        return outputs, inputs | {"ref_chosen_logps": reference[0], "ref_rejected_logps": reference[1]}


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


CHOSEN, REJECTED, LENGTHS = [-4.0, -20.0, -9.0], [-6.0, -7.0, -9.0], ([4, 10, 9], [3, 7, 6])


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
    cpo = SimpleNamespace(
        loss_type=loss_type, beta=beta, alpha=0.0, simpo_gamma=1.2, label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    averaged = (chosen / lengths[0], rejected / lengths[1]) if loss_type == "simpo" else (chosen, rejected)
    lp = PairLogprobs(chosen, rejected, chosen, chosen, chosen_lengths=lengths[0], rejected_lengths=lengths[1])
    theirs, *_ = CPOTrainer.cpo_loss(cpo, *averaged)
    torch.testing.assert_close(preference_loss(loss, lp), theirs, **TO_1E6)


def test_orpo_equals_trls_odds_ratio():
    """TRL's loss is NLL minus the mean of what ``odds_ratio_loss`` gives, in float32."""
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected, lengths = row(CHOSEN), row(REJECTED), torch.tensor(LENGTHS)
    orpo = SimpleNamespace(beta=0.25, accelerator=SimpleNamespace(device="cpu"))
    odds, *_ = ORPOTrainer.odds_ratio_loss(orpo, chosen / lengths[0], rejected / lengths[1])
    lp = PairLogprobs(chosen, rejected, chosen, chosen, chosen_lengths=lengths[0], rejected_lengths=lengths[1])
    ours = preference_loss(ORPO(beta=0.25), lp)
    torch.testing.assert_close(ours.float(), (-chosen / lengths[0]).float() - odds, **TO_1E6)
