"""Losses of the margin alone: D = (log pi - log pi_ref)(y_w) - (log pi - log pi_ref)(y_l), in nats.

None of them sees how likely the chosen completion is, so both sides may fall together (likelihood displacement).
"""

from typing import Literal

from pydantic import Field, PositiveFloat

from alignment.types import Strategy


class DPO(Strategy):
    """-log sigmoid(beta D).

    Rafailov et al. 2023, arXiv:2305.18290, eq. 7; RSO (arXiv:2309.06657) calls it sigmoid-norm. log 2 with gradient
    -beta/2 at zero margin; on separable data it has no finite optimum. Soft labels p make it the soft-label loss,
    stationary at beta D = logit(p).
    """

    type: Literal["dpo"] = "dpo"
    beta: PositiveFloat = 0.1
    """Strength of the tie to the reference: small moves far."""


class CDPO(Strategy):
    """-(1 - e) log sigmoid(beta D) - e log sigmoid(-beta D): DPO whose every label has probability 1 - e.

    Mitchell 2023, "A note on DPO with noisy preferences". Finite optimum at beta D = log((1 - e)/e), 2.197 for 0.1.
    """

    type: Literal["cdpo"] = "cdpo"
    beta: PositiveFloat = 0.1
    label_smoothing: float = Field(default=0.1, ge=0, lt=0.5)
    """Our default; also what RLHFlow's iterative DPO uses."""


class RobustDPO(Strategy):
    """[-(1 - e) log sigmoid(beta D) + e log sigmoid(-beta D)] / (1 - 2e).

    Chowdhury et al. 2024, arXiv:2403.00409: its mean over label flips of rate e is the DPO loss of clean labels.
    Unbounded below as D grows (slope -e beta/(1 - 2e)), so it wants few epochs.
    """

    type: Literal["robust"] = "robust"
    beta: PositiveFloat = 0.1
    flip_rate: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of labels that are wrong; TRL gives 0.1 as typical."""


class IPO(Strategy):
    """(D - 1/(2 beta))^2, with beta the paper's tau.

    Azar et al. 2023, arXiv:2310.12036, eq. 17. ``token_mean`` divides each log-ratio by its completion's tokens, as TRL
    does; ``sum`` is the equation as printed. One beta does not carry over from one to the other. 1/(4 beta^2) at zero
    margin.
    """

    type: Literal["ipo"] = "ipo"
    beta: PositiveFloat = 0.1
    normalise: Literal["sum", "token_mean"] = "sum"


class HingeNorm(Strategy):
    """max(0, 1 - gamma D): the support vector machine's counterpart of DPO.

    Liu et al. 2024, arXiv:2309.06657, where gamma is 0.05. This is not RSO's sampling temperature beta. 1 with
    gradient -gamma at zero margin; no gradient once the margin passes 1/gamma nats.
    """

    type: Literal["hinge_norm"] = "hinge_norm"
    gamma: PositiveFloat = 0.05


class EXO(Strategy):
    """KL(q || p): q = (sigmoid(beta D), sigmoid(-beta D)) against p = (1 - e, e).

    Ji et al. 2024, arXiv:2402.00856, eq. 16 for two completions. The reverse KL of cDPO's cross-entropy: it seeks the
    mode, and its gradient vanishes on pairs that are very wrong. e = 0 would be infinite everywhere.
    """

    type: Literal["exo"] = "exo"
    beta: PositiveFloat = 0.1
    label_smoothing: float = Field(default=1e-3, gt=0, lt=0.5)


class DiscoPOP(Strategy):
    """(1 - s) softplus(-z) + s exp(-z), with z = beta D and s = sigmoid(z / tau).

    Lu et al. 2024, arXiv:2406.08414, eq. 5. Neither convex nor monotone near zero; (log 2 + 1)/2 at zero margin.
    """

    type: Literal["discopop"] = "discopop"
    beta: PositiveFloat = 0.1
    """TRL's default."""
    tau: float = Field(default=0.05, gt=0, lt=1)
    """The paper's. Below 1, s falls faster than exp(-z) rises."""


class SPIN(Strategy):
    """-log sigmoid(beta D), where chosen is a demonstration and rejected the policy's own sample.

    Chen et al. 2024, arXiv:2401.01335, with its logistic loss. DPO's function on other data: it is at rest where the
    reference's distribution is that of the demonstrations. It asks for ``reference = "previous"``.
    """

    type: Literal["spin"] = "spin"
    beta: PositiveFloat = 0.1
    """The paper's lambda; our default."""


class IREPO(Strategy):
    """(D - logit(q)/beta)^2, with q the pair's soft label kept within [1/(2h), 1 - 1/(2h)].

    After iREPO, arXiv:2405.15230, whose soft label is the share of h judgements for chosen, against the policy that
    sampled the pair. The clip is ours: without it a unanimous vote asks for an infinite margin. With hard labels every
    pair asks for logit(1 - 1/(2h))/beta.
    """

    type: Literal["irepo"] = "irepo"
    beta: PositiveFloat = 0.1
    """Our default."""
    votes: int = Field(ge=2)
    """h, the judgements behind each soft label: a fact of the labels, so it has no default."""
