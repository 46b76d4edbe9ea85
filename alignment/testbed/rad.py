"""RAD (arXiv:2410.08067): does conditioning on scores steer, spare good rejected answers, and improve the best ones?

Each of 800 prompts has four scored responses. A response has 16 features; the last one says which of two modes it is
in, worth 2.5 points either way, and the others are worth 1.4 standard deviations in all, on a scale of 1 to 10.
``rho`` is the share of prompts whose responses mix modes: only there can a pair tell one mode from the other. The
policy is a small network over features and goal, trained by DPO; it chooses among 16 test responses of both modes.
Policies are compared where their KL to the reference first reaches 1 nat.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.relabeling import RewardConditioned
from alignment.score_maps import ScoreMap
from alignment.testbed.loglinear import Adam, Floats, Indices, as_groups, log_softmax
from alignment.types import Group, PreferencePair

FEATURES, CANDIDATES, PROMPTS, RESPONSES, TESTS, HIDDEN = 16, 16, 800, 4, 600, 64
SAID = "a score of "
"""How a goal is told."""
MIDDLE, TOP, LOW = 5.5, 10.0, 2.0
"""Goals: of a policy without one, at service, and to see whether a low one is obeyed."""
GOALS = (1.0, 3.0, 5.0, 7.0, 9.0, 10.0)
BETA, RATE, STEPS, BATCH, EVERY = 0.1, 3e-4, 1500, 64, 10


class World(NamedTuple):
    features: Floats
    """(P, 4, D) of the training responses."""
    scores: Floats
    """(P, 4) what the judge gave: gold with noise of 0.5, in steps of a half."""
    chosen: Indices
    """(P,) the best by score."""
    rejected: Indices
    """(P,) one of the others."""
    test_features: Floats
    """(T, 16, D)"""
    test_gold: Floats
    """(T, 16)"""


def make_world(seed: int, rho: float) -> World:
    rng = np.random.default_rng((seed, 4))
    weights = rng.standard_normal(FEATURES - 1) / math.sqrt(FEATURES)

    def gold(features: Floats) -> Floats:
        within = features[..., :-1] @ weights
        return np.clip(MIDDLE + 2.5 * np.sign(features[..., -1]) + 1.4 * within, 1, 10)

    def responses(modes: Floats) -> Floats:
        features = rng.standard_normal((*modes.shape, FEATURES))
        features[..., -1] = modes * (1 + 0.2 * np.abs(features[..., -1]))
        return features

    mixed = rng.random((PROMPTS, 1)) < rho
    modes = np.where(mixed, rng.choice([-1.0, 1.0], (PROMPTS, RESPONSES)), rng.choice([-1.0, 1.0], (PROMPTS, 1)))
    features = responses(modes)
    noisy = gold(features) + 0.5 * rng.standard_normal((PROMPTS, RESPONSES))
    scores = np.clip(np.round(2 * noisy) / 2, 1, 10)
    chosen = scores.argmax(1)
    rejected = (chosen + rng.integers(1, RESPONSES, PROMPTS)) % RESPONSES
    tests = responses(rng.choice([-1.0, 1.0], (TESTS, CANDIDATES)))
    return World(features, scores, chosen, rejected, tests, gold(tests))


class Rows(NamedTuple):
    """Preference pairs under goals, (N,) each."""

    prompts: Indices
    chosen: Indices
    rejected: Indices
    goals: Floats


def pairs_of(world: World) -> Rows:
    """Plain DPO's rows: no goal, ties left out."""
    every = np.arange(PROMPTS)
    above = world.scores[every, world.chosen] > world.scores[every, world.rejected]
    kept = np.flatnonzero(above)
    return Rows(kept, world.chosen[kept], world.rejected[kept], np.full(len(kept), MIDDLE))


def relabelled(world: World, share: float = 1.0) -> Rows:
    """Every pair under both of its scores, swapped under the lower one, by the relabeler that rounds use."""
    plain = pairs_of(world)
    groups = as_groups(np.tile(np.arange(RESPONSES), (PROMPTS, 1)), score=world.scores)
    pairs = [
        PreferencePair(prompt_id=str(p), chosen=int(c), rejected=int(r), source="judge")
        for p, c, r in zip(plain.prompts, plain.chosen, plain.rejected, strict=True)
    ]
    relabeler = RewardConditioned(min_gap=0, share=share, text=f"{SAID}{{goal}}")
    made = relabeler(groups, pairs, ScoreMap(), lambda _: (0,), reward="score", context=None)
    by_id = {group.prompt.id: group for group in made.groups}
    rows = [_row(by_id[pair.prompt_id], pair) for pair in made.pairs]
    prompts, chosen, rejected, goals = zip(*rows, strict=True)
    return Rows(np.array(prompts), np.array(chosen), np.array(rejected), np.array(goals))


def _row(group: Group, pair: PreferencePair) -> tuple[int, int, int, float]:
    """The question, both responses and the goal, as they are written in the conditioned group."""
    assert group.prompt.goal is not None
    responses = [int(group.candidates[i].text) for i in (pair.chosen, pair.rejected)]
    goal = float(group.prompt.goal.text.removeprefix(SAID))
    return int(group.prompt.messages[-1].content), responses[0], responses[1], goal


def unswapped(world: World) -> Rows:
    """Both goals, and the higher score preferred under either: what a relabeler that forgets to swap makes."""
    rows = relabelled(world)
    lower = rows.goals < world.scores[rows.prompts, rows.rejected]
    chosen, rejected = np.where(lower, rows.rejected, rows.chosen), np.where(lower, rows.chosen, rows.rejected)
    return rows._replace(chosen=chosen, rejected=rejected)


class Network:
    """Scores of responses under goals: two hidden layers, 0 at the start so that the policy is its reference."""

    def __init__(self, rng: np.random.Generator) -> None:
        sizes = ((FEATURES + 1, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1))
        parts: list[Floats] = []
        for fan_in, fan_out in sizes:
            bound = 0.0 if fan_out == 1 else 1 / math.sqrt(fan_in)
            parts += [rng.uniform(-bound, bound, fan_in * fan_out), rng.uniform(-bound, bound, fan_out)]
        self.shapes = [shape for fan_in, fan_out in sizes for shape in ((fan_in, fan_out), (fan_out,))]
        flat = np.concatenate(parts)
        self.adam = Adam(flat, np.zeros_like(flat), np.zeros_like(flat))

    def layers(self) -> list[NDArray[np.float32]]:
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        pieces = np.split(self.adam.theta.astype(np.float32), ends[:-1])
        return [piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def scores(self, features: Floats, goals: Floats) -> Floats:
        """``features`` (P, K, D) and ``goals`` (P,) give (P, K)."""
        return self._forward(self.layers(), _inputs(features, goals))[-1][..., 0].astype(np.float64)

    def step(self, features_2B_D: Floats, goals_2B: Floats) -> None:
        """One DPO update; the first half of the batch is preferred to the second."""
        weights = self.layers()
        inputs = _inputs(features_2B_D[:, None], goals_2B)[:, 0]
        first, second, scores = self._forward(weights, inputs)
        half = len(goals_2B) // 2
        margins = BETA * (scores[:half, 0] - scores[half:, 0])
        pull = (-BETA / half / (1 + np.exp(margins)))[:, None]
        by_score = np.concatenate([pull, -pull])
        by_second = (by_score @ weights[4].T) * (second > 0)
        by_first = (by_second @ weights[2].T) * (first > 0)
        steps = ((inputs, by_first), (first, by_second), (second, by_score))
        gradient = np.concatenate([g for x, d in steps for g in ((x.T @ d).ravel(), d.sum(0))])
        self.adam = self.adam.step(gradient.astype(np.float64), RATE)

    @staticmethod
    def _forward(weights: list[NDArray[np.float32]], inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        first = np.maximum(inputs @ weights[0] + weights[1], 0)
        second = np.maximum(first @ weights[2] + weights[3], 0)
        return [first, second, second @ weights[4] + weights[5]]


def _inputs(features: Floats, goals: Floats) -> NDArray[np.float32]:
    told = np.broadcast_to(((goals - MIDDLE) / 4.5)[:, None, None], (*features.shape[:-1], 1))
    return np.concatenate([features, told], -1).astype(np.float32)


def train(world: World, rows: Rows, seed: int) -> Iterator[Network]:
    """The network before every update and after the last one."""
    rng = np.random.default_rng((seed, 5))
    network = Network(rng)
    for _ in range(STEPS):
        yield network
        b = rng.integers(len(rows.prompts), size=BATCH)
        prompts = np.tile(rows.prompts[b], 2)
        responses = np.concatenate([rows.chosen[b], rows.rejected[b]])
        network.step(world.features[prompts, responses], np.tile(rows.goals[b], 2))
    yield network


class Reading(NamedTuple):
    """A policy where its KL first reaches 1 nat; NaN where it never does."""

    gold: float = math.nan
    """Expected at the goal of service."""
    unlearned: float = math.nan
    """Mean change, in nats, of the log-probability of rejected responses that scored 6 or more, at their own goal."""
    low: float = math.nan
    """Expected gold when asked for a score of 2."""


def at_one_nat(world: World, rows: Rows, seed: int, *, conditioned: bool) -> Reading:
    served = np.full(TESTS, TOP if conditioned else MIDDLE)
    for step, network in enumerate(train(world, rows, seed)):
        if step % EVERY == 0:
            logprobs = log_softmax(network.scores(world.test_features, served))
            if (np.exp(logprobs) * logprobs).sum(-1).mean() + math.log(CANDIDATES) >= 1:
                gold = float((np.exp(logprobs) * world.test_gold).sum(-1).mean())
                return Reading(gold, _unlearned(world, network, conditioned), expected(world, network, LOW))
    return Reading()


def expected(world: World, network: Network, goal: float) -> float:
    """Expected gold of the test responses under one goal."""
    probabilities = np.exp(log_softmax(network.scores(world.test_features, np.full(TESTS, goal))))
    return float((probabilities * world.test_gold).sum(-1).mean())


def _unlearned(world: World, network: Network, conditioned: bool) -> float:
    every = np.arange(PROMPTS)
    scores = world.scores[every, world.rejected]
    good = (scores >= 6) & (world.scores[every, world.chosen] > scores)
    logprobs = log_softmax(network.scores(world.features, scores if conditioned else np.full(PROMPTS, MIDDLE)))
    return float((logprobs[every, world.rejected] + math.log(RESPONSES))[good].mean())


def compared(seed: int, rho: float, *, half: bool = False) -> dict[str, float]:
    """RAD against DPO at 1 nat."""
    world = make_world(seed, rho)
    plain = at_one_nat(world, pairs_of(world), seed, conditioned=False)
    rad = at_one_nat(world, relabelled(world), seed, conditioned=True)
    found = {
        f"rad R3 quality, rho = {rho:g}": rad.gold - plain.gold,
        f"rad R2 unlearning, rho = {rho:g}": rad.unlearned,
        f"rad R2 unlearning against dpo, rho = {rho:g}": rad.unlearned - plain.unlearned,
    }
    if half:
        less = at_one_nat(world, relabelled(world, 0.5), seed, conditioned=True)
        found[f"rad R3 half, rho = {rho:g}"] = less.gold - plain.gold
    return found


def steered(seed: int) -> dict[str, float]:
    """Expected gold along the goals, at the end of training."""
    world = make_world(seed, 0.1)
    *_, network = train(world, relabelled(world), seed)
    levels = [expected(world, network, goal) for goal in GOALS]
    *_, network = train(world, unswapped(world), seed)
    forgot = [expected(world, network, goal) for goal in GOALS]
    return {
        "rad R1 steerability": rank_correlation(GOALS, levels),
        "rad R1 spread": levels[-1] - levels[0],
        "rad control no swap": forgot[-1] - forgot[0],
    }


def rank_correlation(xs: tuple[float, ...], ys: list[float]) -> float:
    """Spearman's, of values without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (xs, ys)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
