"""Losses that see each completion by itself, as its log-ratio a = log pi(y|x) - log pi_ref(y|x), in nats.

Unlike losses of the margin they change when both references are shifted alike.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from alignment.types import Strategy

if TYPE_CHECKING:
    from torch import Tensor


class DPOP(Strategy):
    """-log sigmoid(beta (D - penalty max(0, -a_w))): DPO that stops the chosen completion from falling.

    Smaug, Pal et al. 2024, arXiv:2402.13228. With a large penalty it turns into supervised training while a_w < 0.
    """

    type: Literal["dpop"] = "dpop"
    beta: PositiveFloat = 0.1
    penalty: NonNegativeFloat = 5.0
    """The paper's lambda; 5 to 50 are in use. Our default."""


class SPPO(Strategy):
    """(a_w - (P - 1/2)/beta)^2 + (a_l + (P - 1/2)/beta)^2, P the pair's soft label, 1 where it is hard.

    Wu et al. 2024, arXiv:2405.00675, eq. 4.7, beta = 1/eta. The reference is to be the policy that sampled the pairs,
    and P the probability of beating it, for which the pair's own label stands in. Targets are +-500 nats at the
    default: the gradient is clipped by ``train.max_grad_norm``.
    """

    type: Literal["sppo"] = "sppo"
    beta: PositiveFloat = 1e-3


class NCA(Strategy):
    """-log sigmoid(b a_w) - 1/2 log sigmoid(-b a_w) - 1/2 log sigmoid(-b a_l), b for beta.

    Chen et al. 2024, arXiv:2402.05369, for pairs. The chosen side has its optimum at sigmoid(beta a_w) = 2/3.
    """

    type: Literal["nca"] = "nca"
    beta: PositiveFloat = 0.1


class APOZero(Strategy):
    """1 - sigmoid(beta a_w) + sigmoid(beta a_l): for chosen completions better than the policy's own.

    D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7.
    """

    type: Literal["apo_zero"] = "apo_zero"
    beta: PositiveFloat = 0.1


class APODown(Strategy):
    """sigmoid(beta a_w) + 1 - sigmoid(beta D): for chosen completions worse than the policy's own.

    D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 8.
    """

    type: Literal["apo_down"] = "apo_down"
    beta: PositiveFloat = 0.1


class BCO(Strategy):
    """-log sigmoid(beta a_w - d) - log sigmoid(-(beta a_l - d)): a classifier of wanted and unwanted completions.

    Jung et al. 2024, arXiv:2404.04656, where d is a running mean of rewards. Ours is the mean of beta a over all
    completions of the optimiser step's pairs, without gradient; ``zero`` sets d = 0, which is TRL's ``bco_pair``.
    """

    type: Literal["bco"] = "bco"
    beta: PositiveFloat = 0.1
    shift: Literal["step_mean", "zero"] = "step_mean"


class KTO(Strategy):
    """Mean of wanted * (1 - sigmoid(beta (a_w - z))) and unwanted * (1 - sigmoid(beta (z - a_l))).

    Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7, each side of a pair one example. The paper's z estimates the KL
    divergence on prompts and completions of different rows, which no step stores log-probabilities of; ours is
    max(0, mean of a over all completions of the optimiser step's pairs), without gradient.
    """

    type: Literal["kto"] = "kto"
    beta: PositiveFloat = 0.1
    wanted: float = Field(default=1.0, gt=0)
    unwanted: float = Field(default=1.0, gt=0)


def mean_logratio(chosen_B: "Tensor", rejected_B: "Tensor") -> "Tensor":
    """Mean of a over both sides of all pairs, without gradient, ()."""
    return (chosen_B.detach().mean() + rejected_B.detach().mean()) / 2


def kto(loss: KTO, chosen_B: "Tensor", rejected_B: "Tensor") -> "Tensor":
    z = mean_logratio(chosen_B, rejected_B).clamp(min=0)
    wanted = loss.wanted * (-loss.beta * (chosen_B - z)).sigmoid()
    unwanted = loss.unwanted * (-loss.beta * (z - rejected_B)).sigmoid()
    return (wanted + unwanted) / 2
