"""RSO (arXiv:2309.06657): does rejection sampling from the reward-tilted policy make better pairs?

150 training and 200 test prompts with 512 responses of 8 features. The gold reward is linear minus ``curvature``
times a quadratic form, so a log-linear policy is misspecified unless the curvature is 0. The reward model is a
logistic regression on quadratic features of 1,500 Bradley-Terry pairs drawn from another policy. All policies are
compared at a KL of 2 nats, by gold uplift in standard deviations of the reference. Pairs come from the selectors
that rounds use.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from alignment.selection import RSO, BestWorst, Selection
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


def blinded(seed: int) -> dict[str, float]:
    """Acceptance by other candidates' rewards, against plain draws.

    In worlds of its own, none of which was seen before the tolerance of 0.03 was set for it: in the worlds of the
    other claims 24 seeds left this control unresolved.
    """
    return differences(seed + 1000, 0.35, {"rso control blind acceptance": ("blind", "inf")})


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
