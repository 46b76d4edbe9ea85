"""PRS (arXiv:2408.12163): does refining the best draft beat drawing more?

A response is 24 tokens, right or wrong; the gold reward is 10 times the share that is right. Eight tokens depend on
the stated preference alone. The reward model sees gold plus noise. A refinement copies the draft but for what the
critic flags, or, without feedback, for a random fifth. Arms are compared at equal numbers of responses, by the gold
reward of the response that the reward model picks.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.testbed.loglinear import Floats

TOKENS, STATED = 24, 8
"""Tokens of a response, and the last of them that depend on the preference alone."""
PLAIN, WITH_PREFERENCE = 1 / 8, 0.30
"""Chance of a right token there, without and with the preference in the prompt; elsewhere it is 0.35."""

Tokens = NDArray[np.bool_]


class Critic(NamedTuple):
    """Feedback on a draft: the chance that a wrong and that a right token is flagged for rewriting."""

    wrong: float = 0.6
    right: float = 0.15


class Tree(NamedTuple):
    """How a budget is spent: widths of the layers, and what a refinement knows."""

    widths: tuple[int, ...]
    critic: Critic | None = Critic()
    """None refines without feedback."""
    copied: float = 0.8
    """Share of the draft that a refinement without feedback copies."""


def policy(stated: float) -> Floats:
    """(TOKENS,) chance of a right token."""
    return np.concatenate([np.full(TOKENS - STATED, 0.35), np.full(STATED, stated)])


def gold(responses: Tokens) -> Floats:
    """0 to 10, over the last axis."""
    return 10 * responses.mean(-1)


def refine(best_P_T: Tokens, right_T: Floats, tree: Tree, n: int, rng: np.random.Generator) -> Tokens:
    """(P, n, T) refinements of each prompt's draft. One feedback is shared by all of a draft's refinements."""
    shape = (len(best_P_T), n, TOKENS)
    if tree.critic is None:
        rewritten = rng.random(shape) > tree.copied
    else:
        chance = np.where(best_P_T, tree.critic.right, tree.critic.wrong)
        flagged_P_T = rng.random(best_P_T.shape) < chance
        rewritten = flagged_P_T[:, None] | (rng.random(shape) < 0.05)
    return np.where(rewritten, rng.random(shape) < right_T, best_P_T[:, None])


def grow(tree: Tree, right_T: Floats, prompts: int, noise: float, rng: np.random.Generator) -> Tokens:
    """(P, T) the response with the highest reward in each prompt's tree; a draft is the best of all layers so far."""
    best = np.zeros((prompts, TOKENS), dtype=np.bool_)
    top = np.full(prompts, -np.inf)
    for layer, width in enumerate(tree.widths):
        shape = (prompts, width, TOKENS)
        drawn = refine(best, right_T, tree, width, rng) if layer else rng.random(shape) < right_T
        rewards = gold(drawn) + noise * rng.standard_normal(shape[:2])
        here = rewards.argmax(1)
        better = rewards.max(1) > top
        best = np.where(better[:, None], drawn[np.arange(prompts), here], best)
        top = np.maximum(top, rewards.max(1))
    return best


def halves(n: int) -> tuple[int, int]:
    return n // 2, n - n // 2


def arm(name: str, n: int) -> Tree:
    """The named arm at n responses."""
    match name:
        case "rand" | "prand":
            return Tree((n,))
        case "prs":
            return Tree(halves(n))
        case "without feedback":
            return Tree(halves(n), critic=None)
        case "one draft":
            return Tree((1, n - 1))
        case "copies nothing":
            return Tree(halves(n), critic=None, copied=0.0)
        case "flags all":
            return Tree(halves(n), Critic(1, 1))
        case "inverted":
            return Tree(halves(n), Critic(0.15, 0.6))
        case _:
            raise ValueError(f"no arm {name!r}")


def level(name: str, n: int, seed: int, noise: float = 0.5, prompts: int = 1000) -> float:
    """Mean gold of the picked response."""
    rng = np.random.default_rng((seed, n, *name.encode()))
    right_T = policy(PLAIN if name == "rand" else WITH_PREFERENCE)
    return float(gold(grow(arm(name, n), right_T, prompts, noise, rng)).mean())


Cell = tuple[str, int]
"""An arm at a number of responses."""


def gains(seed: int, wanted: Mapping[str, tuple[Cell, Cell]], noise: float = 0.5) -> dict[str, float]:
    """First cell minus second, by claim."""
    cells = {cell: level(*cell, seed, noise) for pair in wanted.values() for cell in pair}
    return {claim: cells[a] - cells[b] for claim, (a, b) in wanted.items()}


def saving(seed: int) -> dict[str, float]:
    """128 over the responses that PRS needs to reach what preference-conditioned sampling reaches with 128."""
    target, sizes = level("prand", 128, seed), (4, 8, 16, 32, 64, 128)
    reached = np.maximum.accumulate([level("prs", n, seed) for n in sizes])
    if not reached[0] < target <= reached[-1]:
        return {"prs P2 efficiency": float("nan")}
    return {"prs P2 efficiency": 128 / 2 ** float(np.interp(target, reached, np.log2(sizes)))}


def split(seed: int) -> dict[str, float]:
    """Half and half, minus the better of all in the first layer and all but one in the second."""
    ends = max(level("prand", 16, seed), level("one draft", 16, seed))
    return {"prs P4 split": level("prs", 16, seed) - ends}


def train(name: str, seed: int, *, mixed: bool, rounds: int = 3, prompts: int = 400) -> tuple[float, float]:
    """Expected gold of one draw with the preference in the prompt, and of its stated part, after some rounds.

    A round imitates the picked responses under the prompt they were drawn for; what does not depend on the preference
    carries over to the other prompt. ``mixed`` trains on all rounds so far instead of the last one.
    """
    rng = np.random.default_rng((seed, *name.encode(), mixed))
    plain, stated = policy(PLAIN), policy(WITH_PREFERENCE)
    picked: list[Floats] = []
    for _ in range(rounds):
        winners = grow(arm(name, 16), plain if name == "rand" else stated, prompts, 0.5, rng)
        picked.append(winners.mean(0))
        learned = np.clip(np.mean(picked, axis=0) if mixed else picked[-1], 0.01, 0.99)
        free = learned[: TOKENS - STATED]
        plain = learned if name == "rand" else np.concatenate([free, plain[-STATED:]])
        stated = np.concatenate([free, stated[-STATED:]]) if name == "rand" else learned
    return float(10 * stated.mean()), float(10 * stated[-STATED:].mean())


def training(seed: int) -> dict[str, float]:
    mixed = {name: train(name, seed, mixed=True) for name in ("rand", "prand", "without feedback", "prs")}
    last = {name: train(name, seed, mixed=False)[0] for name in ("prand", "prs")}
    return {
        "prs P3 training over prand": mixed["prs"][0] - mixed["prand"][0],
        "prs P3 training over prand, last round only": last["prs"] - last["prand"],
        "prs P3 prand over rand": mixed["prand"][0] - mixed["rand"][0],
        "prs P3 without feedback over prand": mixed["without feedback"][0] - mixed["prand"][0],
        "prs P3 rand learns no preference": mixed["rand"][1] - 10 * WITH_PREFERENCE,
    }
