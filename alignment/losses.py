"""Preference losses, side by side as mathematics: sums of log-probabilities in, one loss per pair out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, assert_never

from pydantic import Field, PositiveFloat

from alignment.types import Strategy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PairLogprobs:
    """Sequence log-probabilities of B pairs, all four by the same arithmetic.

    Float32 or wider: bf16 moves in steps of 8 near -1,500, so the margin between two long completions would vanish.
    """

    policy_chosen: "Tensor"
    """(B,) log-probability of the chosen completion under the policy, in nats, summed over its tokens."""
    policy_rejected: "Tensor"
    ref_chosen: "Tensor"
    """(B,) the same completion under the reference."""
    ref_rejected: "Tensor"

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


class DPO(Strategy):
    """-log sigmoid(beta * margin).

    Rafailov et al. 2023, arXiv:2305.18290, eq. 7; RSO (arXiv:2309.06657) calls it sigmoid-norm. log 2 with gradient
    -beta/2 at zero margin; on separable data it has no finite optimum.
    """

    type: Literal["dpo"] = "dpo"
    beta: PositiveFloat = 0.1
    """Strength of the tie to the reference: small moves far."""


class HingeNorm(Strategy):
    """max(0, 1 - gamma * margin): the support vector machine's counterpart of DPO.

    Liu et al. 2024, arXiv:2309.06657, where gamma is 0.05. This is not RSO's sampling temperature beta. 1 with
    gradient -gamma at zero margin; no gradient once the margin passes 1/gamma nats.
    """

    type: Literal["hinge_norm"] = "hinge_norm"
    gamma: PositiveFloat = 0.05


Loss = Annotated[DPO | HingeNorm, Field(discriminator="type")]


def preference_loss(loss: Loss, lp: PairLogprobs, p: "Tensor | None" = None) -> "Tensor":
    """Loss of each pair, (B,). Its mean is over all pairs of an optimiser step, never of a micro-batch or a group.

    ``p`` (B,) is the probability that chosen is better: p f(z) + (1 - p) f(-z), whose gradient vanishes where
    sigma(z) = p for DPO. The papers label hard, which is ``p=None`` and equals p = 1; p = 1/2 treats both alike.
    """
    import torch.nn.functional as F  # the driver validates configs without torch

    match loss:
        case DPO(beta=beta):
            # A hand-written min(x, 0) - log1p(exp(-|x|)) has gradient 0 at margin 0, where every round begins.
            kept, flipped = -F.logsigmoid(beta * lp.margin), -F.logsigmoid(-beta * lp.margin)
        case HingeNorm(gamma=gamma):
            kept, flipped = F.relu(1 - gamma * lp.margin), F.relu(1 + gamma * lp.margin)
        case _:
            assert_never(loss)
    return kept if p is None else p * kept + (1 - p) * flipped


def pair_metrics(loss: Loss, lp: PairLogprobs) -> "dict[str, Tensor]":
    """What to watch while training, per pair and detached, each (B,): a step sums them over micro-batches and
    workers before it divides.

    ``margin`` in nats; ``accuracy`` 1 where chosen has the higher implicit reward, 1/2 where they tie;
    ``chosen_reward`` and ``rejected_reward``, the log-ratios times the loss's beta or gamma.
    """
    scale = loss.beta if isinstance(loss, DPO) else loss.gamma
    margin = lp.margin.detach()
    return {
        "margin": margin,
        "accuracy": (margin.sign() + 1) / 2,
        "chosen_reward": scale * lp.chosen_logratio.detach(),
        "rejected_reward": scale * lp.rejected_logratio.detach(),
    }
