"""Several reward models as one: on one scale, conservative where they disagree, and asked where they disagree most.

Arrays are (M, N): M members, N completions or pairs. NaN is a score that a member has not, and makes the ensemble's
NaN.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from alignment.errors import UserError
from alignment.types import Group, PreferencePair

Floats = NDArray[np.float64]

Aggregate = Literal["mean", "lower_bound", "worst"]


class Standard(NamedTuple):
    """What a member's rewards are measured in: their mean and standard deviation on a fixed set of completions."""

    mean: float
    sd: float


def standard_of(member: str, rewards: Sequence[float]) -> Standard:
    """UserError where all rewards are equal: such a member has no scale and nothing to say."""
    mean, sd = (float(np.mean(rewards)), float(np.std(rewards))) if rewards else (0.0, 0.0)
    if not sd > 0:
        told = f"scores every completion {mean:g}" if rewards else "scored no completion"
        raise UserError(f"reward member {member!r} {told}, so it cannot be standardised; leave it out of the ensemble")
    return Standard(mean, sd)


def standardised(rewards_M_N: Floats, standards: Sequence[Standard]) -> Floats:
    """(M, N) rewards in standard deviations from each member's mean: equal for a member and its multiple by 1000."""
    return np.stack([(row - s.mean) / s.sd for row, s in zip(rewards_M_N, standards, strict=True)])


def aggregated(rewards_M_N: Floats, how: Aggregate, penalty: float) -> Floats:
    """(N,) one reward of several standardised ones.

    ``mean`` and ``worst`` (the minimum) as in Coste et al. 2023, arXiv:2310.02743; ``lower_bound`` is the mean less
    ``penalty`` standard deviations over members (ours: theirs subtracts the variance). Members that agree give all
    three the same number.
    """
    match how:
        case "mean":
            return rewards_M_N.mean(axis=0)
        case "lower_bound":
            return rewards_M_N.mean(axis=0) - penalty * rewards_M_N.std(axis=0)
        case "worst":
            return rewards_M_N.min(axis=0)
        case _:
            assert_never(how)


def by_disagreement(margins_M_N: Floats) -> list[int]:
    """Pairs in the order in which a label would settle most, from members' standardised margins.

    First by the share of members that are outvoted on who is better (a tie is half a vote for each), then by the
    standard deviation of their margins, then by place. Unanimous pairs come last. ValueError for NaN.
    """
    if np.isnan(margins_M_N).any():
        raise ValueError("a pair that a member could not score has no margin, so it cannot be ranked")
    votes_N = ((np.sign(margins_M_N) + 1) / 2).mean(axis=0)
    outvoted_N, spread_N = np.minimum(votes_N, 1 - votes_N), margins_M_N.std(axis=0)
    return [int(i) for i in np.lexsort((-spread_N.round(9), -outvoted_N.round(9)))]


def member_margins(
    groups: Sequence[Group], pairs: Sequence[PreferencePair], ensemble: str, members: Sequence[str]
) -> Floats:
    """(M, N) standardised margins of pairs, from the members' rewards in the groups (``ensemble.member``).

    ValueError where a pair has no score of a member: it has no reward of the ensemble either, so nothing pairs it.
    """
    rewards_of = {g.prompt.id: g.rewards for g in groups}
    margins = [[_margin(rewards_of[p.prompt_id], f"{ensemble}.{member}", p) for p in pairs] for member in members]
    return np.array(margins, dtype=np.float64).reshape(len(members), len(pairs))


def _margin(rewards: Mapping[str, tuple[float | None, ...]], name: str, pair: PreferencePair) -> float:
    chosen, rejected = rewards[name][pair.chosen], rewards[name][pair.rejected]
    if chosen is None or rejected is None:
        raise ValueError(f"prompt {pair.prompt_id}: {name} has no score of {pair.chosen} or {pair.rejected}")
    return chosen - rejected
