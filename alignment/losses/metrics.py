"""What to watch of a loss's pairs while training."""

from typing import TYPE_CHECKING

from alignment.losses.loss import Loss
from alignment.losses.margin import HingeNorm
from alignment.losses.pair_logprobs import PairLogprobs
from alignment.losses.reference_free import ORPO, RWR, SFT, Hinge

if TYPE_CHECKING:
    from torch import Tensor


def reward_scale(loss: Loss) -> float:
    """Implicit reward per nat of log-ratio: the loss's beta or gamma, 1 where it has none."""
    match loss:
        case HingeNorm(gamma=gamma) | Hinge(gamma=gamma):
            return gamma
        case SFT() | RWR() | ORPO():
            return 1.0
        case _:
            return loss.beta


def pair_metrics(loss: Loss, lp: PairLogprobs) -> "dict[str, Tensor]":
    """What to watch while training, per pair and detached, each (B,): a step sums them over micro-batches and
    workers before it divides.

    ``margin`` in nats; ``accuracy`` 1 where chosen has the higher implicit reward, 1/2 where they tie;
    ``chosen_reward`` and ``rejected_reward``, the log-ratios times the loss's beta or gamma. For losses without a
    reference too, so that every run can be compared with every other.
    """
    scale = reward_scale(loss)
    margin = lp.margin.detach()
    return {
        "margin": margin,
        "accuracy": (margin.sign() + 1) / 2,
        "chosen_reward": scale * lp.chosen_logratio.detach(),
        "rejected_reward": scale * lp.rejected_logratio.detach(),
    }
