"""What a preference loss sees of a batch of pairs: log-probabilities, and the few facts that some losses need more."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PairLogprobs:
    """Sequence log-probabilities of B pairs, all by the same arithmetic.

    Float32 or wider, ValueError otherwise: bf16 moves in steps of 8 near -1,500, so the margin between two long
    completions would vanish. What is None was not given; a loss that needs it raises ValueError by name.
    """

    policy_chosen: "Tensor"
    """(B,) log-probability of the chosen completion under the policy, in nats, summed over its tokens."""
    policy_rejected: "Tensor"
    ref_chosen: "Tensor"
    """(B,) the same completion under the reference."""
    ref_rejected: "Tensor"
    chosen_lengths: "Tensor | None" = None
    """(B,) tokens of the chosen completion, its EOS included."""
    rejected_lengths: "Tensor | None" = None
    mean_lengths: tuple[float, float] | None = None
    """Tokens of a chosen and of a rejected completion, means over all pairs of the optimiser step; None where these B
    pairs are the step."""
    prompts: "Tensor | None" = None
    """(B,) int64, equal where two pairs are of one prompt. All pairs of a prompt are in the batch."""
    reward_margin: "Tensor | None" = None
    """(B,) reward of the chosen minus reward of the rejected completion, in the reward's own units."""
    chosen_confidence: "Tensor | None" = None
    """(B,) mean over tokens of log p_t - log sum_v p_v^2 under the policy, without gradient: 0 where each token is as
    likely as the policy's own draws are on average."""
    rejected_confidence: "Tensor | None" = None
    shared: "PairLogprobs | None" = None
    """The same pairs, each side summed over its first min(chosen, rejected length) tokens."""
    second: "PairLogprobs | None" = None
    """The same pairs measured against a second reference."""

    def __post_init__(self) -> None:
        for values in (self.policy_chosen, self.policy_rejected, self.ref_chosen, self.ref_rejected):
            if values.dtype.itemsize < 4:
                raise ValueError(f"log-probabilities in {values.dtype}: margins need float32 or wider; sum in float32")
            if values.shape != self.policy_chosen.shape:
                raise ValueError(
                    f"log-probabilities of shapes {tuple(self.policy_chosen.shape)}, {tuple(values.shape)}"
                )

    @property
    def chosen_logratio(self) -> "Tensor":
        """(B,) log pi(y_w|x) - log pi_ref(y_w|x), in nats."""
        return self.policy_chosen - self.ref_chosen

    @property
    def rejected_logratio(self) -> "Tensor":
        """(B,) log pi(y_l|x) - log pi_ref(y_l|x), in nats."""
        return self.policy_rejected - self.ref_rejected

    @property
    def margin(self) -> "Tensor":
        """(B,) difference of log-ratios, chosen minus rejected, in nats. Exactly zero where policy is reference."""
        return (self.policy_chosen - self.policy_rejected) - (self.ref_chosen - self.ref_rejected)

    @property
    def policy_margin(self) -> "Tensor":
        """(B,) log pi(y_w|x) - log pi(y_l|x): the margin of losses without a reference, in nats."""
        return self.policy_chosen - self.policy_rejected

    def swapped(self) -> "PairLogprobs":
        """The same pairs with the opposite labels."""
        return replace(
            self,
            policy_chosen=self.policy_rejected,
            policy_rejected=self.policy_chosen,
            ref_chosen=self.ref_rejected,
            ref_rejected=self.ref_chosen,
            chosen_lengths=self.rejected_lengths,
            rejected_lengths=self.chosen_lengths,
            mean_lengths=self.mean_lengths and (self.mean_lengths[1], self.mean_lengths[0]),
            reward_margin=None if self.reward_margin is None else -self.reward_margin,
            chosen_confidence=self.rejected_confidence,
            rejected_confidence=self.chosen_confidence,
            shared=self.shared.swapped() if self.shared else None,
            second=self.second.swapped() if self.second else None,
        )
