"""From couples of candidates to preference pairs, with every couple and every prompt that is lost accounted for."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignment.errors import UserError
from alignment.types import Dropped, Group, PreferencePair, Record, seed_of

Rewards = NDArray[np.float64]
"""(G,) rewards of one group's candidates; NaN where a candidate may not be paired."""

Couple = tuple[int, int]
"""Two candidate indices, in no order: the rewards decide which is chosen."""

CouplesOf = Callable[[Group, Rewards, np.random.Generator], tuple[list[Couple], dict[str, float]]]
"""What a method proposes for one group, and what it measured there."""

QUANTILES = (10, 50, 90)
"""Percent."""
TOO_FEW = "a pair needs two candidates: fewer were accepted"


class Selection(Record):
    """What a selector made of a round."""

    pairs: tuple[PreferencePair, ...]
    dropped: tuple[Dropped, ...]
    """One per prompt without any pair (``item`` is its id), and one per lost pair of the other prompts
    (``item`` is ``id:i,j``)."""
    metrics: dict[str, float]
    """Counts, and means over prompts or pairs. A mean over nothing is left out. ``missing_rate`` is the share of
    candidates without a score, among those whose scores were looked at."""

    @property
    def reasons(self) -> dict[str, str]:
        """Why, by what was dropped."""
        return {row.item: row.reason for row in self.dropped}

    @property
    def missing(self) -> dict[str, float]:
        """``missing_rate`` alone, where it was measured."""
        return {name: value for name, value in self.metrics.items() if name == "missing_rate"}


def select_by_reward(
    groups: Iterable[Group],
    rng: np.random.Generator,
    couples_of: CouplesOf,
    *,
    reward: str,
    source: str,
    min_margin: float = 0.0,
    empty: str = TOO_FEW,
) -> Selection:
    """Each group through ``couples_of`` with a generator of its own, so that order and neighbours change nothing.

    Groups are read once and not kept. ``empty`` is the reason given for a group where nothing was proposed.
    """
    seed, seen = int(rng.integers(2**63)), set[str]()
    pairs: list[PreferencePair] = []
    dropped: list[Dropped] = []
    facts: list[dict[str, float]] = []
    compared: list[Rewards] = []
    candidates = missing = 0
    for group in groups:
        refuse_twice(group.prompt.id, seen)
        rewards_G = named_rewards(group, reward)
        candidates, missing = candidates + len(rewards_G), missing + int(np.count_nonzero(np.isnan(rewards_G)))
        rewards_G = np.where(pairable(group), rewards_G, np.nan)
        finite_G = np.isfinite(rewards_G)
        if (paired := int(np.count_nonzero(finite_G))) < 2:
            dropped.append(drop(group.prompt.id, why_unpairable(group, len(finite_G) - paired)))
            continue
        couples, measured = couples_of(group, rewards_G, np.random.default_rng(seed_of(seed, group.prompt.id)))
        made, lost = label_by_reward(group, rewards_G, couples, source=source, min_margin=min_margin)
        pairs += made
        dropped += lost if made else [drop(group.prompt.id, why_empty(lost, empty))]
        lost_rate = len(lost) / len(couples) if couples else 0.0
        compared.append(rewards_G[finite_G])
        facts.append({**measured, "reward_sd": float(compared[-1].std()), "lost_rate": lost_rate})
    metrics = {"prompts": float(len(seen))} | _metrics(pairs, dropped, facts) | _reward_quantiles(compared)
    return Selection(pairs=tuple(pairs), dropped=tuple(dropped), metrics=metrics | missing_rate(missing, candidates))


def named_rewards(group: Group, reward: str) -> Rewards:
    """(G,) rewards named ``reward``, NaN where a score is missing or not finite.

    Raises UserError if the group was never scored by that model.
    """
    if group.candidates and reward not in group.rewards:
        raise UserError(
            f"select: prompt {group.prompt.id} has rewards {sorted(group.rewards)} and none named {reward!r}: "
            "score the completions with it, or select by one that was"
        )
    return finite_or_nan(group.rewards.get(reward, ()))


def finite_or_nan(rewards_G: ArrayLike | Sequence[float | None]) -> Rewards:
    rewards = np.asarray(rewards_G, dtype=np.float64)  # None becomes NaN
    if rewards.ndim != 1:
        raise ValueError(f"rewards of one group have shape (G,), not {rewards.shape}")
    return np.where(np.isfinite(rewards), rewards, np.nan)


def pairable(group: Group) -> NDArray[np.bool_]:
    """(G,) false where a completion was cut at its token limit or says nothing."""
    return np.array(
        [c.finish_reason != "length" and bool(c.text) and not c.text.isspace() for c in group.candidates], dtype=bool
    )


def pairable_rewards(group: Group, reward: str) -> Rewards:
    """(G,) rewards named ``reward``, NaN where the candidate has no score, was cut at its token limit or is empty.

    Raises UserError if the group was never scored by that model.
    """
    return np.where(pairable(group), named_rewards(group, reward), np.nan)


def label_by_reward(
    group: Group, rewards_G: Rewards, couples: Sequence[Couple], *, source: str, min_margin: float
) -> tuple[list[PreferencePair], list[Dropped]]:
    """The higher reward is chosen. Ties and identical texts, whose loss has no gradient, are dropped."""
    made: list[PreferencePair] = []
    lost: list[Dropped] = []
    for i, j in couples:
        chosen, rejected = (i, j) if rewards_G[i] >= rewards_G[j] else (j, i)
        margin = float(rewards_G[chosen] - rewards_G[rejected])
        at = f"{group.prompt.id}:{chosen},{rejected}"
        if group.candidates[chosen].text == group.candidates[rejected].text:
            lost.append(drop(at, "identical completions"))
        elif margin == 0:
            lost.append(drop(at, "equal rewards"))
        elif margin <= min_margin:
            lost.append(drop(at, f"reward gap of at most min_margin = {min_margin:g}"))
        else:
            pair = PreferencePair(
                prompt_id=group.prompt.id, chosen=chosen, rejected=rejected, source=source, margin=margin
            )
            made.append(pair)
    return made, lost


def drop(item: str, reason: str) -> Dropped:
    return Dropped(step="select", item=item, reason=reason)


def accounted(
    prompts: Iterable[str], paired: set[str], lost: Mapping[str, Sequence[Dropped]], unproposed: Mapping[str, str]
) -> tuple[Dropped, ...]:
    """Lost pairs of prompts that have others, and one line for each prompt that has none: where no pair was lost, the
    reason why none was proposed."""
    rows: list[Dropped] = []
    for prompt in prompts:
        of_prompt, otherwise = lost.get(prompt, ()), unproposed.get(prompt, "no pair was proposed")
        rows += of_prompt if prompt in paired else [drop(prompt, why_empty(of_prompt, otherwise))]
    return tuple(rows)


def refuse_twice(prompt: str, seen: set[str]) -> None:
    if prompt in seen:
        raise ValueError("select: two groups share a prompt id, so a pair would name candidates of either")
    seen.add(prompt)


def why_unpairable(group: Group, unpairable: int) -> str:
    truncated = sum(c.finish_reason == "length" for c in group.candidates)
    empty = len(group.candidates) - int(pairable(group).sum()) - truncated
    said = f", {empty} are empty" if empty else ""
    return (
        f"a pair needs two candidates: of {len(group.candidates)}, {truncated} were cut at the token limit{said} and "
        f"{unpairable - truncated - empty} more have no score"
    )


def why_empty(lost: Sequence[Dropped], empty: str) -> str:
    if not lost:
        return empty
    return f"no pair left of {len(lost)}: {', '.join(sorted({d.reason for d in lost}))}"


def missing_rate(missing: int, candidates: int) -> dict[str, float]:
    return {"missing_rate": missing / candidates} if candidates else {}


def _reward_quantiles(compared: Sequence[Rewards]) -> dict[str, float]:
    """Of all rewards that were looked at, over all prompts: from round to round they show a scale that drifts."""
    if not compared:
        return {}
    quantiles = np.quantile(np.concatenate(compared), [percent / 100 for percent in QUANTILES])
    return {f"reward_q{percent}": float(value) for percent, value in zip(QUANTILES, quantiles, strict=True)}


def _metrics(
    pairs: Sequence[PreferencePair], dropped: Sequence[Dropped], facts: Sequence[dict[str, float]]
) -> dict[str, float]:
    means: dict[str, list[float]] = {}
    for of_prompt in facts:
        for key, value in of_prompt.items():
            means.setdefault(key, []).append(value)
    means["margin_mean"] = [p.margin for p in pairs if p.margin is not None]
    counts = {"pairs": float(len(pairs)), "dropped": float(len(dropped))}
    return counts | {key: float(np.mean(values)) for key, values in means.items() if values}
