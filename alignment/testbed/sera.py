"""SeRA (arXiv:2410.09362): do implicit reward margins find wrong labels, and does training without them help?

300 training and 200 test prompts with 96 responses of 20 features that gold depends on, one that stands for length,
and 200 that mean nothing. 600 pairs are labelled by a Bradley-Terry labeller who may flip labels or like length. DPO
trains for three epochs on all of them; then SeRA reviews them twice, three epochs each, while the baseline trains on.
All policies are compared at a KL of 2 nats, by gold uplift in standard deviations of the reference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.selection import BestWorst
from alignment.selection.evidence import Evidence, PolicyName
from alignment.selection.sera import SeRA
from alignment.testbed.loglinear import (
    Adam,
    Floats,
    Indices,
    Standing,
    as_groups,
    at,
    at_kl,
    draw,
    log_softmax,
    logprobs_of,
    prefers_first,
    train_dpo,
)
from alignment.types import PreferencePair, SequenceLogprobs

TRAIN, TEST, RESPONSES, SIGNAL, NOISE = 300, 200, 96, 20, 200
LENGTH = SIGNAL
"""The feature that stands for length."""
SIZE = SIGNAL + 1 + NOISE
FRESH = 4
"""Responses that the current policy writes to each prompt for bootstrapping."""
EPOCHS = 3


class World(NamedTuple):
    """Prompts of training first, then those of the test; the reference is uniform."""

    features: Floats
    gold: Floats
    drawn: Indices
    """(P, 4) responses of the training prompts: two pairs each, as columns 0 and 1, 2 and 3."""
    first_chosen: NDArray[np.bool_]
    """(P, 2) whether the first of a pair was labelled better."""

    def pairs(self) -> list[PreferencePair]:
        return [
            PreferencePair(prompt_id=str(p), chosen=2 * k + 1 - won, rejected=2 * k + won, source="labels")
            for p, row in enumerate(self.first_chosen)
            for k, won in enumerate(row.astype(int).tolist())
        ]

    def standing(self, theta: Floats) -> Standing:
        features = self.features[TRAIN:]
        return at_kl(np.zeros(features.shape[:2]), features @ theta)

    def gold_uplift(self, theta: Floats) -> float:
        return self.standing(theta).uplift(self.gold[TRAIN:])

    def length_drift(self, theta: Floats) -> float:
        return self.standing(theta).drift(self.features[TRAIN:, :, LENGTH])


def make_world(rng: np.random.Generator, flips: float, length: float) -> World:
    """``flips`` is the share of labels turned round, ``length`` what the labeller pays for a unit of it."""
    features = rng.standard_normal((TRAIN + TEST, RESPONSES, SIZE))
    features[..., SIGNAL + 1 :] *= 0.5
    weights = rng.standard_normal(SIGNAL)
    gold = features[..., :SIGNAL] @ (weights * np.sqrt(5) / np.linalg.norm(weights))
    drawn = np.stack([rng.choice(RESPONSES, 4, replace=False) for _ in range(TRAIN)])
    liked = at(gold[:TRAIN] + length * features[:TRAIN, :, LENGTH], drawn)
    chosen = prefers_first(liked[:, ::2] - liked[:, 1::2], rng)
    return World(features, gold, drawn, chosen ^ (rng.random(chosen.shape) < flips))


def gaps_of(world: World, drawn: Indices, pairs: Sequence[PreferencePair]) -> Floats:
    """(N, D) features of chosen minus those of rejected; pairs index the columns of ``drawn``."""
    prompts = np.array([int(p.prompt_id) for p in pairs])
    chosen = drawn[prompts, [p.chosen for p in pairs]]
    rejected = drawn[prompts, [p.rejected for p in pairs]]
    return world.features[prompts, chosen] - world.features[prompts, rejected]


def _train(state: Adam, gaps: Floats, rng: np.random.Generator, epochs: int = EPOCHS) -> Adam:
    return train_dpo(state, gaps, rng, beta=0.1, lr=0.05, batch=32, epochs=epochs)


def reviewed(world: World, start: Adam, selector: SeRA, seed: int, *, by_gold: bool = False) -> Floats:
    """theta after two more iterations on what the selector leaves and adds.

    ``by_gold`` lets the gold reward label the added pairs: what on-policy pairs are worth with perfect labels.
    """
    rng = np.random.default_rng((seed, 6))
    state, previous, labelled = start, None, world.pairs()
    for _ in range(2):
        logits = world.features[:TRAIN] @ state.theta
        drawn = np.concatenate([world.drawn, draw(log_softmax(logits), FRESH, rng)], axis=1)
        groups = as_groups(drawn)
        rows: dict[PolicyName, list[SequenceLogprobs]] = {
            "current": logprobs_of(logits, drawn),
            "initial": logprobs_of(np.zeros_like(logits), drawn),
        }
        if previous is not None:
            rows["previous"] = logprobs_of(world.features[:TRAIN] @ previous, drawn)
        evidence = Evidence(logprobs=rows, labelled=labelled)
        pairs: Sequence[PreferencePair] = selector(groups, rng, reward="none", evidence=evidence).pairs
        if by_gold:
            kept = [p for p in pairs if p.source == "labels"]
            pairs = [*kept, *_gold_pairs(world, drawn, len(pairs) - len(kept), rng)]
        previous, state = state.theta, _train(state, gaps_of(world, drawn, pairs), rng)
    return state.theta


def _gold_pairs(world: World, drawn: Indices, count: int, rng: np.random.Generator) -> list[PreferencePair]:
    """The best against the worst of a prompt's fresh responses, the widest ``count``."""
    columns = world.drawn.shape[1]
    groups = as_groups(drawn[:, columns:], gold=world.gold[:TRAIN])
    found = sorted(BestWorst()(groups, rng, reward="gold").pairs, key=lambda p: -(p.margin or 0))[:count]
    return [p.model_copy(update={"chosen": p.chosen + columns, "rejected": p.rejected + columns}) for p in found]


class Start(NamedTuple):
    """After the first iteration, and what its margins know."""

    world: World
    state: Adam
    gaps: Floats
    margins: Floats
    wrong: NDArray[np.bool_]
    """(N,) whether gold disagrees with the label."""


def begin(seed: int, flips: float, length: float) -> Start:
    rng = np.random.default_rng((seed, 5))
    world = make_world(rng, flips, length)
    pairs = world.pairs()
    gaps = gaps_of(world, world.drawn, pairs)
    state = _train(Adam.start(SIZE), gaps, rng)
    gold = at(world.gold[:TRAIN], world.drawn)
    better = np.array([gold[int(p.prompt_id), p.chosen] - gold[int(p.prompt_id), p.rejected] for p in pairs])
    return Start(world, state, gaps, gaps @ state.theta, better < 0)


def trained_on(start: Start, seed: int) -> Floats:
    """The baseline: DPO on all pairs for as many epochs as SeRA trains."""
    return _train(start.state, start.gaps, np.random.default_rng((seed, 7)), 2 * EPOCHS).theta


def area_under_curve(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Chance that a positive scores above a negative one; scores without ties."""
    ranks = scores.argsort().argsort()[positive] + 1
    hits = float(positive.sum())
    return (float(ranks.sum()) - hits * (hits + 1) / 2) / (hits * (len(scores) - hits))


def noisy(seed: int) -> dict[str, float]:
    """A fifth of the labels flipped: all arms."""
    start = begin(seed, flips=0.2, length=0.0)
    best = np.argsort(-start.margins)[: round(0.7 * len(start.margins))]
    plain = trained_on(start, seed)
    selectors = {
        "sera": SeRA(),
        "alone": SeRA(ensemble=0),
        "mid": SeRA(band="mid", bootstrap=0),
        "low": SeRA(band="low", bootstrap=0),
        "random": SeRA(band="random", bootstrap=0),
    }
    thetas = {name: reviewed(start.world, start.state, selector, seed) for name, selector in selectors.items()}
    thetas["gold"] = reviewed(start.world, start.state, SeRA(), seed, by_gold=True)
    gold = {name: start.world.gold_uplift(theta) for name, theta in thetas.items()}
    dpo, early = start.world.gold_uplift(plain), start.world.gold_uplift(start.state.theta)
    return {
        "sera S1 margins find wrong labels": area_under_curve(-start.margins, start.wrong),
        "sera S2 wrong labels kept": float(start.wrong[best].mean() / start.wrong.mean()),
        "sera S3 flipped labels, 20%": gold["sera"] - dpo,
        "sera S3 over early stopping": gold["sera"] - early,
        "sera S3 over the middle band": gold["sera"] - gold["mid"],
        "sera S5 ensemble": gold["sera"] - gold["alone"],
        "sera control low band": gold["low"] - dpo,
        "sera control random band": gold["random"] - dpo,
        "sera control gold labels": gold["gold"] - dpo,
    }


def gain(seed: int, flips: float, claim: str) -> dict[str, float]:
    """SeRA against DPO."""
    start = begin(seed, flips, length=0.0)
    theta = reviewed(start.world, start.state, SeRA(), seed)
    return {claim: start.world.gold_uplift(theta) - start.world.gold_uplift(trained_on(start, seed))}


def lengthy(seed: int) -> dict[str, float]:
    """Honest labels of someone who likes length."""
    start = begin(seed, flips=0.0, length=1.0)
    theta, plain = reviewed(start.world, start.state, SeRA(), seed), trained_on(start, seed)
    return {
        "sera S6 margins follow length": float(np.corrcoef(start.margins, start.gaps[:, LENGTH])[0, 1]),
        "sera S6 less length bias": start.world.length_drift(theta) / start.world.length_drift(plain),
    }
