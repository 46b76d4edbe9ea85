"""One batch as TRL's trainers and our losses see it."""

from types import SimpleNamespace

import torch

from alignment.losses import PairLogprobs

PAIRS, PROMPT, LONGEST = 6, 3, 9
TO_1E6 = {"rtol": 1e-6, "atol": 1e-6}


class Batch:
    """Random token log-probabilities of ragged completions, as TRL's model output and as ours; the reference's are
    ``above`` times what they were drawn as, so that above 1 the policy is likelier."""

    def __init__(self, above: float = 1.0) -> None:
        rng = torch.Generator().manual_seed(3)
        self.lengths = torch.randint(1, LONGEST + 1, (2, PAIRS), generator=rng)
        self.mask = torch.arange(LONGEST) < self.lengths[..., None]
        policy, reference = (self._tokens(rng) for _ in range(2))
        self.reference = above * reference
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
