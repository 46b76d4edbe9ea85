"""Preference losses: one strategy and one ``case`` each."""

from alignment.losses.absolute import BCO, DPOP, KTO, NCA, SPPO, APODown, APOZero
from alignment.losses.corrected import LDDPO, MRPO, RDPO, WPO, DPONorm
from alignment.losses.loss import Loss, preference_loss
from alignment.losses.margin import CDPO, DPO, EXO, IPO, IREPO, SPIN, DiscoPOP, HingeNorm, RobustDPO
from alignment.losses.metrics import pair_metrics, reward_scale
from alignment.losses.needs import mixes_references, spans_step, weighs_tokens
from alignment.losses.pair_logprobs import PairLogprobs
from alignment.losses.reference_free import CPO, ORPO, RPO, RWR, SFT, Hinge, SimPO
from alignment.losses.sets import AOT, MultiDPO, MultiIPO

__all__ = [
    "AOT",
    "BCO",
    "CDPO",
    "CPO",
    "DPO",
    "DPOP",
    "EXO",
    "IPO",
    "IREPO",
    "KTO",
    "LDDPO",
    "MRPO",
    "NCA",
    "ORPO",
    "RDPO",
    "RPO",
    "RWR",
    "SFT",
    "SPIN",
    "SPPO",
    "WPO",
    "APODown",
    "APOZero",
    "DPONorm",
    "DiscoPOP",
    "Hinge",
    "HingeNorm",
    "Loss",
    "MultiDPO",
    "MultiIPO",
    "PairLogprobs",
    "RobustDPO",
    "SimPO",
    "mixes_references",
    "pair_metrics",
    "preference_loss",
    "reward_scale",
    "spans_step",
    "weighs_tokens",
]
