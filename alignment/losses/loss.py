"""Preference losses, side by side as mathematics: log-probabilities in, one loss per pair out."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, TypeVar, assert_never

from pydantic import Field

from alignment.losses.absolute import BCO, DPOP, KTO, NCA, SPPO, APODown, APOZero, kto, mean_logratio
from alignment.losses.corrected import LDDPO, MRPO, RDPO, WPO, DPONorm, discrimination, virtual_reference
from alignment.losses.margin import CDPO, DPO, EXO, IPO, IREPO, SPIN, DiscoPOP, HingeNorm, RobustDPO
from alignment.losses.pair_logprobs import PairLogprobs
from alignment.losses.reference_free import CPO, ORPO, RPO, RWR, SFT, Hinge, NLLNorm, SimPO, log_odds
from alignment.losses.sets import AOT, MultiDPO, MultiIPO, mean_over_prompts, sorted_margin

if TYPE_CHECKING:
    from torch import Tensor

MarginLoss = DPO | CDPO | RobustDPO | IPO | HingeNorm | EXO | DiscoPOP | SPIN | IREPO
CorrectedLoss = DPONorm | RDPO | LDDPO | WPO | MRPO
AbsoluteLoss = DPOP | SPPO | NCA | APOZero | APODown | BCO | KTO
ReferenceFreeLoss = Hinge | SimPO | CPO | ORPO | SFT | RWR
SetLoss = MultiDPO | MultiIPO | AOT
Loss = Annotated[
    MarginLoss | CorrectedLoss | AbsoluteLoss | RPO | ReferenceFreeLoss | SetLoss, Field(discriminator="type")
]

T = TypeVar("T")


def preference_loss(loss: Loss, lp: PairLogprobs, p: "Tensor | None" = None) -> "Tensor":
    """Loss of each pair, (B,). Its mean is over all pairs of an optimiser step, never of a micro-batch or a group.

    ``p`` (B,) is the probability that chosen is better: p l(y_w, y_l) + (1 - p) l(y_l, y_w), whose gradient vanishes
    where sigma(z) = p for DPO. SPPO and iREPO have equations of their own for it. The papers label hard, which is
    ``p=None`` and equals p = 1; p = 1/2 treats both alike.

    Raises ValueError where the loss needs something of the pairs that ``lp`` does not have, and for soft labels of a
    loss that has no place for them.
    """
    match loss:
        case SPPO(beta=beta):
            target = (_label(p, lp) - 0.5) / beta
            return (lp.chosen_logratio - target) ** 2 + (lp.rejected_logratio + target) ** 2
        case IREPO(beta=beta, votes=votes):
            edge = 1 / (2 * votes)
            return (lp.margin - _label(p, lp).clamp(edge, 1 - edge).logit() / beta) ** 2
        case AOT():
            if p is not None and bool((p != 1).any()):
                raise ValueError("aot sorts the pairs of a step: a soft label has no pair there to belong to")
            return _hard(loss, lp)
        case _:
            kept = _hard(loss, lp)
            return kept if p is None else p * kept + (1 - p) * _hard(loss, lp.swapped())


def _label(p: "Tensor | None", lp: PairLogprobs) -> "Tensor":
    import torch

    return torch.ones_like(lp.policy_chosen) if p is None else p


HardLoss = MarginLoss | CorrectedLoss | AbsoluteLoss | RPO | ReferenceFreeLoss | SetLoss


def _hard(loss: HardLoss, lp: PairLogprobs) -> "Tensor":
    """Loss of each pair whose first completion is certainly the better one, (B,)."""
    match loss:
        case DPO() | CDPO() | RobustDPO() | IPO() | HingeNorm() | EXO() | DiscoPOP() | SPIN():
            return _of_margin(loss, lp)
        case DPONorm() | RDPO() | LDDPO() | WPO() | MRPO():
            return _corrected(loss, lp)
        case DPOP() | NCA() | APOZero() | APODown() | BCO() | KTO():
            return _absolute(loss, lp)
        case RPO(beta=beta, alpha=alpha):
            return _softplus(-beta * lp.margin) + alpha * _nll(loss.normalise, loss.type, lp)
        case Hinge() | SimPO() | CPO() | ORPO() | SFT() | RWR():
            return _reference_free(loss, lp)
        case MultiDPO(beta=beta):
            return _softplus(-beta * mean_over_prompts(lp.margin, _given(lp.prompts, loss.type, "prompts")))
        case MultiIPO(beta=beta):
            return (mean_over_prompts(lp.margin, _given(lp.prompts, loss.type, "prompts")) - 1 / (2 * beta)) ** 2
        case AOT():
            return _sorted(loss, lp)
        case SPPO() | IREPO():
            return preference_loss(loss, lp)
        case _:
            assert_never(loss)


def _of_margin(loss: DPO | CDPO | RobustDPO | IPO | HingeNorm | EXO | DiscoPOP | SPIN, lp: PairLogprobs) -> "Tensor":
    import torch

    match loss:
        case DPO(beta=beta) | SPIN(beta=beta):
            return _softplus(-beta * lp.margin)
        case CDPO(beta=beta, label_smoothing=e):
            return (1 - e) * _softplus(-beta * lp.margin) + e * _softplus(beta * lp.margin)
        case RobustDPO(beta=beta, flip_rate=e):
            return ((1 - e) * _softplus(-beta * lp.margin) - e * _softplus(beta * lp.margin)) / (1 - 2 * e)
        case IPO(beta=beta, normalise="sum"):
            return (lp.margin - 1 / (2 * beta)) ** 2
        case IPO(beta=beta):
            return (_mean_margin(lp, loss.type) - 1 / (2 * beta)) ** 2
        case HingeNorm(gamma=gamma):
            return (1 - gamma * lp.margin).relu()
        case EXO(beta=beta, label_smoothing=e):
            z = beta * lp.margin
            log_p = torch.tensor([1 - e, e], dtype=z.dtype, device=z.device).log()
            return z.sigmoid() * (-_softplus(-z) - log_p[0]) + (-z).sigmoid() * (-_softplus(z) - log_p[1])
        case DiscoPOP(beta=beta, tau=tau):
            z = beta * lp.margin
            # exp(-z) times sigmoid(z/tau) in one exponent: apart, the first overflows below z = -88
            return (-z / tau).sigmoid() * _softplus(-z) + (-z - _softplus(-z / tau)).exp()
        case _:
            assert_never(loss)


def _corrected(loss: CorrectedLoss, lp: PairLogprobs) -> "Tensor":
    match loss:
        case DPONorm(beta=beta):
            return _softplus(-beta * _mean_margin(lp, loss.type))
        case RDPO(beta=beta, alpha=alpha):
            longer = _chosen_lengths(lp, loss.type) - _rejected_lengths(lp, loss.type)
            return _softplus(-(beta * lp.margin + alpha * longer))
        case LDDPO(beta=beta, alpha=alpha):
            shared = _given(lp.shared, loss.type, "shared").margin
            return _softplus(-beta * (shared + alpha * (lp.margin - shared)))
        case WPO(beta=beta):
            log_weights = _given(lp.chosen_confidence, loss.type, "chosen_confidence") + _given(
                lp.rejected_confidence, loss.type, "rejected_confidence"
            )
            return log_weights.detach().exp() * _softplus(-beta * lp.margin)
        case MRPO(beta=beta, clip=clip):
            second = _given(lp.second, loss.type, "second")
            alpha = discrimination(lp.ref_chosen - lp.ref_rejected, second.ref_chosen - second.ref_rejected)
            chosen = virtual_reference(lp.ref_chosen, second.ref_chosen, alpha, clip)
            rejected = virtual_reference(lp.ref_rejected, second.ref_rejected, alpha, clip)
            return _softplus(-beta * replace(lp, ref_chosen=chosen, ref_rejected=rejected).margin)
        case _:
            assert_never(loss)


def _absolute(loss: DPOP | NCA | APOZero | APODown | BCO | KTO, lp: PairLogprobs) -> "Tensor":
    a_w, a_l = lp.chosen_logratio, lp.rejected_logratio
    match loss:
        case DPOP(beta=beta, penalty=penalty):
            return _softplus(-beta * (lp.margin - penalty * (-a_w).relu()))
        case NCA(beta=beta):
            return _softplus(-beta * a_w) + (_softplus(beta * a_w) + _softplus(beta * a_l)) / 2
        case APOZero(beta=beta):
            return (-beta * a_w).sigmoid() + (beta * a_l).sigmoid()
        case APODown(beta=beta):
            return (beta * a_w).sigmoid() + (-beta * lp.margin).sigmoid()
        case BCO(beta=beta, shift=shift):
            d = beta * mean_logratio(a_w, a_l) if shift == "step_mean" else 0.0
            return _softplus(-(beta * a_w - d)) + _softplus(beta * a_l - d)
        case KTO():
            return kto(loss, a_w, a_l)
        case _:
            assert_never(loss)


def _reference_free(loss: ReferenceFreeLoss, lp: PairLogprobs) -> "Tensor":
    match loss:
        case Hinge(gamma=gamma):
            return (1 - gamma * lp.policy_margin).relu()
        case SimPO(beta=beta, gamma=gamma):
            chosen, rejected = _mean_logprobs(lp, loss.type)
            return _softplus(-(beta * (chosen - rejected) - gamma))
        case CPO(beta=beta, alpha=alpha):
            return _softplus(-beta * lp.policy_margin) + alpha * _nll(loss.normalise, loss.type, lp)
        case ORPO(beta=beta):
            chosen, rejected = _mean_logprobs(lp, loss.type)
            return -chosen + beta * _softplus(-(log_odds(chosen) - log_odds(rejected)))
        case SFT():
            return _nll(loss.normalise, loss.type, lp)
        case RWR(tau=tau):
            share = (_given(lp.reward_margin, loss.type, "reward_margin") / tau).sigmoid()
            both = (_nll(loss.normalise, loss.type, side) for side in (lp, lp.swapped()))
            return share * next(both) + (1 - share) * next(both)
        case _:
            assert_never(loss)


def _sorted(loss: AOT, lp: PairLogprobs) -> "Tensor":
    sides = {
        "paired": (lp.policy_margin, lp.ref_chosen - lp.ref_rejected),
        "unpaired": (lp.chosen_logratio, lp.rejected_logratio),
    }
    z, e = loss.beta * sorted_margin(*sides[loss.compare]), loss.label_smoothing
    return (1 - e) * _softplus(-z) + e * _softplus(z)


def _softplus(z: "Tensor") -> "Tensor":
    """log(1 + e^z) = -log sigmoid(-z)."""
    from torch.nn.functional import logsigmoid  # the driver validates configs without torch

    # A hand-written max(z, 0) + log1p(exp(-|z|)) has gradient 0 at z = 0, where every round begins.
    return -logsigmoid(-z)


def _mean_margin(lp: PairLogprobs, name: str) -> "Tensor":
    chosen, rejected = _chosen_lengths(lp, name), _rejected_lengths(lp, name)
    return lp.chosen_logratio / chosen - lp.rejected_logratio / rejected


def _mean_logprobs(lp: PairLogprobs, name: str) -> "tuple[Tensor, Tensor]":
    return lp.policy_chosen / _chosen_lengths(lp, name), lp.policy_rejected / _rejected_lengths(lp, name)


def _nll(normalise: NLLNorm, name: str, lp: PairLogprobs) -> "Tensor":
    match normalise:
        case "sum":
            return -lp.policy_chosen
        case "token_mean":
            return -lp.policy_chosen / _chosen_lengths(lp, name)
        case "step_token_mean":
            mean = lp.mean_lengths[0] if lp.mean_lengths else _chosen_lengths(lp, name).mean()
            return -lp.policy_chosen / mean
        case _:
            assert_never(normalise)


def _chosen_lengths(lp: PairLogprobs, name: str) -> "Tensor":
    return _given(lp.chosen_lengths, name, "chosen_lengths").to(lp.policy_chosen.dtype)


def _rejected_lengths(lp: PairLogprobs, name: str) -> "Tensor":
    return _given(lp.rejected_lengths, name, "rejected_lengths").to(lp.policy_chosen.dtype)


def _given(value: T | None, name: str, field: str) -> T:
    if value is None:
        raise ValueError(f"{name} needs {field} of every pair: give PairLogprobs {field}")
    return value
