"""Selectors: which candidates of a round become preference pairs.

Each is called with ``(groups, rng, *, reward, evidence)`` and gives a ``Selection``: pairs, what was dropped and why,
and what it measured.
"""

from typing import Annotated, assert_never

from pydantic import Field

from alignment.selection.acquisition import needs_logprobs
from alignment.selection.apl import APL
from alignment.selection.couples import Selection, pairable_rewards
from alignment.selection.evidence import Evidence, PolicyName
from alignment.selection.extremes import BestWorst, TopK
from alignment.selection.reference_guided import ReferenceGuided
from alignment.selection.rs_dpo import RSDPO
from alignment.selection.rso import RSO, acceptance_gap
from alignment.selection.sera import SeRA

Selector = Annotated[
    BestWorst | RSO | SeRA | APL | RSDPO | ReferenceGuided | TopK, Field(discriminator="type")
]  # fmt: skip


def needed_policies(selector: Selector) -> tuple[PolicyName, ...]:
    """Under which policies a selector needs the candidates' log-probabilities. Without a previous policy, SeRA does
    with the others."""
    match selector:
        case SeRA():
            return ("current", "previous", "initial")
        case APL(acquire=acquire):
            return ("current", "initial") if needs_logprobs(acquire) else ()
        case RSO(target="initial"):
            return ("current", "initial")
        case ReferenceGuided():
            return ("initial",)
        case BestWorst() | RSO() | RSDPO() | TopK():
            return ()
        case _:
            assert_never(selector)


def reviews_pairs(selector: Selector) -> bool:
    """Whether pairs that exist already are reviewed by it; by the others they are taken as they are."""
    return isinstance(selector, SeRA | ReferenceGuided)


__all__ = [
    "APL",
    "RSDPO",
    "RSO",
    "BestWorst",
    "Evidence",
    "PolicyName",
    "ReferenceGuided",
    "SeRA",
    "Selection",
    "Selector",
    "TopK",
    "acceptance_gap",
    "needed_policies",
    "pairable_rewards",
    "reviews_pairs",
]
