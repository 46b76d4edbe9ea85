"""RSO (arXiv:2309.06657): does rejection sampling from the reward-tilted policy make better pairs?

150 training and 200 test prompts with 512 responses of 8 features. The gold reward is linear minus ``curvature``
times a quadratic form, so a log-linear policy is misspecified unless the curvature is 0. The reward model is a
logistic regression on quadratic features of 1,500 Bradley-Terry pairs drawn from another policy. All policies are
compared at a KL of 2 nats, by gold uplift in standard deviations of the reference. Pairs come from the selectors
that rounds use.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from alignment.selection import RSO, BestWorst, Selection
from alignment.testbed.claims import Claim, Experiment
from alignment.testbed.loglinear import (
    Floats,
    Indices,
    PairLoss,
    as_groups,
    at,
    at_kl,
    draw,
    fit_pairs,
    log_softmax,
    prefers_first,
)
from alignment.types import Group, PreferencePair

TRAIN, TEST, RESPONSES, FEATURES = 150, 200, 512, 8
CANDIDATES, ACCEPTED = 64, 8
TAIL = 1.3
"""Beyond this value of the first feature the hackable reward model errs."""


class World(NamedTuple):
    """Prompts of training first, then those of the test."""

    features: Floats
    """(P, M, D)"""
    gold: Floats
    """(P, M)"""
    reference: Floats
    """(P, M) logits of the policy that candidates are drawn from."""
    others: Floats
    """(P, M) logits of the policy whose completions people compared."""

    def gold_uplift(self, theta: Floats) -> float:
        return self.uplift(theta, self.gold)

    def uplift(self, theta: Floats, values_P_M: Floats) -> float:
        """At a KL of 2 nats, on test prompts."""
        features, reference, values = (a[TRAIN:] for a in (self.features, self.reference, values_P_M))
        return at_kl(reference, features @ theta).uplift(values)


def make_world(rng: np.random.Generator, curvature: float) -> World:
    """Unit linear part times 2, minus ``curvature`` times a random quadratic form with mean eigenvalue 1."""
    linear, root = rng.standard_normal(FEATURES), rng.standard_normal((FEATURES, FEATURES)) / math.sqrt(FEATURES)
    tilts = 0.3 * rng.standard_normal(FEATURES), 0.6 * rng.standard_normal(FEATURES)
    features = rng.standard_normal((TRAIN + TEST, RESPONSES, FEATURES))
    gold = 2 * features @ (linear / np.linalg.norm(linear)) - curvature * ((features @ root) ** 2).sum(-1)
    return World(features, gold, features @ tilts[0], features @ tilts[1])


class Compared(NamedTuple):
    """Pairs that people labelled."""

    first: Indices
    """(P, 10) responses of the training prompts."""
    second: Indices
    signs: Floats
    """(P, 10) +1 where the first was preferred."""


def compare(world: World, rng: np.random.Generator) -> Compared:
    drawn = draw(log_softmax(world.others[:TRAIN]), 20, rng)
    first, second = drawn[:, ::2], drawn[:, 1::2]
    gold = world.gold[:TRAIN]
    return Compared(first, second, np.where(prefers_first(at(gold, first) - at(gold, second), rng), 1.0, -1.0))


def fit_reward(world: World, compared: Compared) -> Floats:
    """(P, M) rewards of a model with linear and quadratic terms."""
    i, j = np.triu_indices(FEATURES)
    terms = np.concatenate([world.features, world.features[..., i] * world.features[..., j]], axis=-1)
    return terms @ fit_pairs(_signed(terms, compared))


def _signed(features: Floats, compared: Compared) -> Floats:
    gaps = at(features[:TRAIN], compared.first) - at(features[:TRAIN], compared.second)
    return (gaps * compared.signs[..., None]).reshape(-1, features.shape[-1])


class Drawn(NamedTuple):
    """64 candidates for each training prompt, scored."""

    world: World
    candidates: Indices
    """(P, 64)"""
    groups: list[Group]

    def fit(self, pairs: Sequence[PreferencePair], loss: PairLoss = "sigmoid") -> Floats:
        prompts = np.array([int(p.prompt_id) for p in pairs])
        chosen = self.candidates[prompts, [p.chosen for p in pairs]]
        rejected = self.candidates[prompts, [p.rejected for p in pairs]]
        return fit_pairs(self.world.features[prompts, chosen] - self.world.features[prompts, rejected], loss)

    def accepted(self, beta: float, rng: np.random.Generator, count: int = ACCEPTED) -> Selection:
        """RSO with beta in standard deviations of a prompt's rewards; beta = inf pairs ``count`` plain draws."""
        return RSO(beta=beta, beta_unit="prompt_sd", num_accepted=count)(self.groups, rng, reward="rm")

    def accepted_blindly(self, beta: float, rng: np.random.Generator) -> Selection:
        """Accept by the rewards of other candidates, then pair and label as usual: nothing but the sampler's
        knowledge of the reward is taken away."""
        sampler = RSO(beta=beta, beta_unit="prompt_sd", num_accepted=ACCEPTED)
        kept = [sampler.accept(rng.permutation([r or 0.0 for r in g.rewards["rm"]]), rng) for g in self.groups]
        plain = RSO(beta=math.inf, num_accepted=ACCEPTED)
        groups = [_blanked(g, set(k)) for g, k in zip(self.groups, kept, strict=True)]
        return plain(groups, rng, reward="rm")


def _blanked(group: Group, kept: set[int]) -> Group:
    rewards = tuple(r if i in kept else None for i, r in enumerate(group.rewards["rm"]))
    return group.model_copy(update={"rewards": {"rm": rewards}})


def draw_candidates(world: World, reward: Floats, rng: np.random.Generator) -> Drawn:
    candidates = draw(log_softmax(world.reference[:TRAIN]), CANDIDATES, rng)
    return Drawn(world, candidates, as_groups(candidates, rm=reward[:TRAIN]))


def differences(seed: int, curvature: float, arms: Mapping[str, tuple[str, str]]) -> dict[str, float]:
    """Gold uplift of the first arm minus that of the second, by claim."""
    rng = np.random.default_rng((seed, 1))
    world = make_world(rng, curvature)
    compared = compare(world, rng)
    drawn = draw_candidates(world, fit_reward(world, compared), rng)
    named = dict.fromkeys(arm for pair in arms.values() for arm in pair)
    gold = {arm: world.gold_uplift(_arm(arm, drawn, compared, (seed, 3))) for arm in named}
    return {claim: gold[a] - gold[b] for claim, (a, b) in arms.items()}


def _arm(arm: str, drawn: Drawn, compared: Compared, seed: tuple[int, ...]) -> Floats:
    """theta of one arm; a number is RSO's beta. Every arm starts its generator anew, so none depends on the others."""
    rng = np.random.default_rng(seed)
    match arm:
        case "direct":
            return fit_pairs(_signed(drawn.world.features, compared))
        case "sft64":
            return drawn.fit(drawn.accepted(math.inf, rng, CANDIDATES).pairs)
        case "max-min":
            return drawn.fit(BestWorst()(drawn.groups, rng, reward="rm").pairs)
        case "blind":
            return drawn.fit(drawn.accepted_blindly(0.5, rng).pairs)
        case "hinge":
            return drawn.fit(drawn.accepted(0.5, rng).pairs, "hinge")
        case _:
            return drawn.fit(drawn.accepted(float(arm), rng).pairs)


def hacked(seed: int) -> dict[str, float]:
    """A reward model that pays for what the gold reward punishes, in the tail of one feature."""
    rng = np.random.default_rng((seed, 2))
    world = make_world(rng, 0.0)
    tail = np.maximum(0, world.features[..., 0] - TAIL)
    proxy, world = world.gold + 4 * tail, world._replace(gold=world.gold - tail)
    drawn = draw_candidates(world, proxy, rng)
    thetas = {beta: drawn.fit(drawn.accepted(beta, rng).pairs) for beta in (0.0, 0.5, 2.0, 8.0, math.inf)}
    paid = {beta: world.uplift(theta, proxy) for beta, theta in thetas.items()}
    gold = {beta: world.gold_uplift(theta) for beta, theta in thetas.items()}
    return {
        "rso R5 hacked reward rises": paid[0.0] - paid[math.inf],
        "rso R5 hacked gold falls": gold[0.0] - gold[math.inf],
        "rso R5 hacked at beta 0.5": gold[0.5] - gold[math.inf],
        "rso R5 safe at beta 8": gold[8.0] - gold[0.0],
    }


PAPER_R1 = "paper: +4.1 points of gold win rate on TL;DR, +0.5 on HH"

CURVED = {
    "rso R1 sampling source": ("0.5", "inf"),
    "rso R1 policy samples": ("inf", "direct"),
    "rso R2 loss": ("hinge", "0.5"),
    "rso R3 more samples": ("sft64", "inf"),
    "rso R3 rejection over more samples": ("0.5", "sft64"),
    "rso R4 flat below beta 0.5": ("0.02", "0.5"),
    "rso R4 weaker at beta 2": ("0.5", "2"),
    "rso R6 over max-min": ("0.5", "max-min"),
}
BLIND = {"rso control blind acceptance": ("blind", "inf")}
STEEP = {
    "rso R1 sampling source, curvature 0.8": ("0.5", "inf"),
    "rso R1 policy samples, curvature 0.8": ("inf", "direct"),
    "rso R6 over max-min, curvature 0.8": ("0.5", "max-min"),
}
NULL = {"rso R1 null": ("0.5", "inf")}

EXPERIMENTS = (
    Experiment(
        (
            Claim(
                "rso R1 sampling source",
                "gold(rso) - gold(sft) > 0, in sd at KL 2",
                f"{PAPER_R1}; testbed +0.095 ± 0.026",
                above=0,
                testbed=(0.044, 0.146),
            ),
            Claim(
                "rso R1 policy samples",
                "gold(sft) - gold(direct) > 0",
                "paper: +2.1 points of gold win rate on TL;DR, +22.5 on HH; testbed +0.346 ± 0.066",
                above=0,
                testbed=(0.217, 0.475),
            ),
            Claim(
                "rso R2 loss",
                "|gold(hinge-norm) - gold(sigmoid-norm)| < 0.05",
                "paper: +1.2 points of gold win rate on TL;DR, -1.4 on HH; testbed -0.003",
                above=-0.05,
                below=0.05,
            ),
            Claim(
                "rso R3 more samples",
                "|gold(sft64) - gold(sft8)| < 0.04",
                "paper: +0.3 points of proxy win rate; testbed +0.005 ± 0.016",
                above=-0.04,
                below=0.04,
                testbed=(-0.026, 0.036),
            ),
            Claim(
                "rso R3 rejection over more samples",
                "gold(rso) - gold(sft64) > 0",
                "paper: +3.5 points of proxy win rate; testbed +0.090",
                above=0,
            ),
            Claim(
                "rso R4 flat below beta 0.5",
                "|gold(beta 0.02) - gold(beta 0.5)| < 0.05, beta in sd of rewards",
                "paper: best at 0.5 of {0, 0.05, 0.5, 5}; testbed -0.004",
                above=-0.05,
                below=0.05,
            ),
            Claim(
                "rso R4 weaker at beta 2",
                "gold(beta 0.5) - gold(beta 2) > 0",
                "paper: best at 0.5 of {0, 0.05, 0.5, 5}; testbed +0.047",
                above=0,
            ),
            Claim(
                "rso R6 over max-min",
                "gold(rso) - gold(max-min of 64) > 0",
                "paper: none; testbed +0.109",
                above=0,
            ),
        ),
        partial(differences, curvature=0.35, arms=CURVED),
        seeds=24,
    ),
    Experiment(
        (
            Claim(
                "rso R1 sampling source, curvature 0.8",
                "gold(rso) - gold(sft) > 0",
                f"{PAPER_R1}; testbed +0.165 ± 0.038",
                above=0,
                testbed=(0.091, 0.239),
            ),
            Claim(
                "rso R1 policy samples, curvature 0.8",
                "gold(sft) - gold(direct) > 0",
                "paper: +2.1 points of gold win rate on TL;DR; testbed +0.668 ± 0.105",
                above=0,
                testbed=(0.462, 0.874),
            ),
            Claim(
                "rso R6 over max-min, curvature 0.8",
                "gold(rso) - gold(max-min of 64) > 0",
                "paper: none; testbed: about 0",
                above=0,
            ),
        ),
        partial(differences, curvature=0.8, arms=STEEP),
        seeds=16,
    ),
    Experiment(
        (
            Claim(
                "rso R1 null",
                "|gold(rso) - gold(sft)| < 0.03 where the policy class is right",
                "none: null control; testbed -0.009 ± 0.005",
                above=-0.03,
                below=0.03,
                testbed=(-0.019, 0.001),
            ),
        ),
        partial(differences, curvature=0.0, arms=NULL),
        seeds=32,
    ),
    Experiment(
        (
            Claim(
                "rso control blind acceptance",
                "|gold(accepted by others' rewards) - gold(sft)| < 0.04",
                "none: negative control",
                above=-0.04,
                below=0.04,
            ),
        ),
        partial(differences, curvature=0.35, arms=BLIND),
        seeds=40,
    ),
    Experiment(
        (
            Claim(
                "rso R5 hacked reward rises",
                "proxy(beta 0) - proxy(sft) > 0",
                "paper: none; testbed +0.140",
                above=0,
            ),
            Claim(
                "rso R5 hacked gold falls",
                "gold(beta 0) - gold(sft) < 0",
                "paper: none; testbed -0.153",
                below=0,
            ),
            Claim(
                "rso R5 hacked at beta 0.5",
                "gold(beta 0.5) - gold(sft) < 0",
                "paper: none; testbed -0.102",
                below=0,
            ),
            Claim(
                "rso R5 safe at beta 8",
                "gold(beta 8) - gold(beta 0) > 0",
                "paper: none; testbed +0.174",
                above=0,
            ),
        ),
        hacked,
        seeds=24,
    ),
)
