"""APL (arXiv:2402.08114): does choosing which pairs are labelled save labels?

2,000 prompts with 256 responses of 24 features, whose spread differs from prompt to prompt. Labels are bought in steps
up to 256, by the current policy's own completions; each step trains from the uniform reference on all labels so far
for 50 epochs. Strategies are compared by win rate against the reference on 200 other prompts.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from alignment.selection.acquisition import Acquire
from alignment.selection.apl import APL
from alignment.selection.evidence import Evidence, PolicyName
from alignment.testbed.loglinear import (
    Adam,
    Floats,
    as_groups,
    draw,
    log_softmax,
    logprobs_of,
    prefers_first,
    train_dpo,
)
from alignment.types import Group, SequenceLogprobs

PROMPTS, TEST, RESPONSES, FEATURES = 2000, 200, 256, 24
BUDGETS = (32, 64, 96, 128, 192, 256)
OVERSAMPLED = {"random": (1, 2), "random_distinct": (4, 2), "certainty": (8, 2), "uncertainty": (8, 2)}
"""Prompts per label and completions per prompt; 4 and 16 where entropy is estimated."""

Labeller = Literal["noisy", "exact"]


class World(NamedTuple):
    features: Floats
    """(P, M, D), prompts of training first, then those of the test."""
    gold: Floats
    """(P, M)"""

    def win_rate(self, theta: Floats) -> float:
        """Chance that the policy's response is better than the reference's; equal ones count half."""
        probabilities = np.exp(log_softmax(self.features[PROMPTS:] @ theta))
        ranks = self.gold[PROMPTS:].argsort(-1).argsort(-1)
        return float((probabilities * (ranks + 0.5) / RESPONSES).sum(-1).mean())


def make_world(rng: np.random.Generator, curvature: float) -> World:
    """Gold is linear minus ``curvature`` times a random quadratic form with mean eigenvalue 1."""
    weights = rng.standard_normal(FEATURES)
    root = rng.standard_normal((FEATURES, FEATURES)) / math.sqrt(FEATURES)
    spread = rng.uniform(0.2, 1.5, PROMPTS + TEST)
    features = spread[:, None, None] * rng.standard_normal((PROMPTS + TEST, RESPONSES, FEATURES))
    gold = 2 * features @ (weights / np.linalg.norm(weights))
    return World(features, gold - curvature * ((features @ root) ** 2).sum(-1) if curvature else gold)


class Strategy(NamedTuple):
    acquire: Acquire
    copies: bool = False
    """Whether a response drawn twice counts as two texts: then a couple may say one thing in two ways."""

    @property
    def drawn(self) -> tuple[int, int]:
        return OVERSAMPLED.get(self.acquire, (4, 16))


class Course(NamedTuple):
    """How a policy learned."""

    win_rates: tuple[float, ...]
    """After each of ``BUDGETS``."""
    agreement: float
    """Share of labels, after the first step, that the policy's own implicit rewards foretold."""


def learn(world: World, strategy: Strategy, labeller: Labeller, seed: int) -> Course:
    """Buy labels by the shipped selector, step by step."""
    rng = np.random.default_rng((seed, *strategy.acquire.encode()))
    theta, pool = np.zeros(FEATURES), np.zeros((0, FEATURES))
    rates: list[float] = []
    foretold: list[Floats] = []
    for before, budget in zip((0, *BUDGETS), BUDGETS, strict=False):
        gaps = _acquire(world, strategy, labeller, budget - before, theta, rng)
        if before:
            foretold.append((gaps @ theta > 0).astype(float))
        pool = np.concatenate([pool, gaps])
        start, order = Adam.start(FEATURES), np.random.default_rng((seed, budget))
        theta = train_dpo(start, pool, order, beta=0.2, lr=0.02, batch=64, epochs=50).theta
        rates.append(world.win_rate(theta))
    return Course(tuple(rates), float(np.concatenate(foretold).mean()))


def _acquire(
    world: World, strategy: Strategy, labeller: Labeller, labels: int, theta: Floats, rng: np.random.Generator
) -> Floats:
    """(N, D) features of chosen minus those of rejected: at most ``labels``."""
    per_label, completions = strategy.drawn
    prompts = rng.choice(PROMPTS, per_label * labels, replace=False)
    features, gold = world.features[prompts], world.gold[prompts]
    logits = features @ theta
    drawn = draw(log_softmax(logits), completions, rng)
    groups = as_groups(drawn, copies=strategy.copies)
    tokens = 1 + strategy.copies
    rows: dict[PolicyName, list[SequenceLogprobs]] = {
        "current": logprobs_of(logits, drawn, tokens=tokens),
        "initial": logprobs_of(np.zeros_like(logits), drawn, tokens=tokens),
    }

    def oracle(group: Group, i: int, j: int) -> float:
        p = int(group.prompt.id)
        gap = np.array(gold[p, drawn[p, i]] - gold[p, drawn[p, j]])
        prefers = gap > 0 if labeller == "exact" and gap else prefers_first(np.asarray(gap), rng)
        return float(prefers)

    selector = APL(acquire=strategy.acquire, labels=labels, min_distance=0 if strategy.copies else 0.1)
    pairs = selector(groups, rng, reward="none", evidence=Evidence(logprobs=rows), oracle=oracle).pairs
    rows_of = np.array([int(p.prompt_id) for p in pairs])
    chosen = drawn[rows_of, [p.chosen for p in pairs]]
    rejected = drawn[rows_of, [p.rejected for p in pairs]]
    return features[rows_of, chosen] - features[rows_of, rejected]


STRATEGIES: Mapping[str, Strategy] = {
    "random": Strategy("random"),
    "distinct": Strategy("random_distinct"),
    "certainty": Strategy("certainty"),
    "uncertainty": Strategy("uncertainty"),
    "uncertainty with copies": Strategy("uncertainty", copies=True),
    "entropy": Strategy("entropy"),
    "hybrid": Strategy("hybrid"),
}


def courses(seed: int, labeller: Labeller, names: tuple[str, ...], curvature: float = 0.0) -> dict[str, Course]:
    world = make_world(np.random.default_rng((seed, 8)), curvature)
    return {name: learn(world, STRATEGIES[name], labeller, seed) for name in names}


def noisy(seed: int) -> dict[str, float]:
    """A Bradley-Terry labeller, every strategy."""
    found = courses(seed, "noisy", tuple(STRATEGIES))
    final = {name: course.win_rates[-1] for name, course in found.items()}
    certain, plain, distinct = (found[name] for name in ("certainty", "random", "distinct"))
    return {
        "apl A1 certainty, 256 labels": final["certainty"] - final["random"],
        "apl A1 certainty, 192 labels": certain.win_rates[-2] - plain.win_rates[-2],
        "apl A2 certainty over distinct": final["certainty"] - final["distinct"],
        "apl A2 distinct over random": final["distinct"] - final["random"],
        "apl A3 uncertainty with copies": final["uncertainty with copies"] - final["random"],
        "apl A3 uncertainty among distinct": final["uncertainty"] - final["random"],
        "apl A4 agreement": certain.agreement - distinct.agreement,
        "apl A4 agreement below 1": certain.agreement,
        "apl A5 labels saved": labels_saved(certain, plain),
        "apl entropy": final["entropy"] - final["random"],
        "apl hybrid": final["hybrid"] - final["random"],
    }


def labels_saved(one: Course, other: Course) -> float:
    """Labels that ``one`` needs fewer than ``other`` to reach what both reach in the end: the lower final win rate."""
    target = min(one.win_rates[-1], other.win_rates[-1])
    return labels_to(other, target) - labels_to(one, target)


def labels_to(course: Course, target: float) -> float:
    """Where the course first reaches the target, between budgets by a straight line; BUDGETS[0] if it starts there.

    ValueError if it never does.
    """
    reached = [i for i, rate in enumerate(course.win_rates) if rate >= target]
    if not reached:
        raise ValueError(f"the course ends at a win rate of {course.win_rates[-1]:g}, below {target:g}")
    k = reached[0]
    if k == 0:
        return float(BUDGETS[0])
    before, after = course.win_rates[k - 1], course.win_rates[k]
    return BUDGETS[k - 1] + (BUDGETS[k] - BUDGETS[k - 1]) * (target - before) / (after - before)


def uncertain(seed: int, claim: str, labeller: Labeller, curvature: float = 0.0) -> dict[str, float]:
    """Uncertainty, with copies, against random."""
    found = courses(seed, labeller, ("random", "uncertainty with copies"), curvature)
    return {claim: found["uncertainty with copies"].win_rates[-1] - found["random"].win_rates[-1]}
