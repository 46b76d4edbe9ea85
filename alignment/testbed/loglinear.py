"""A world small enough to enumerate: every prompt has M responses with known features and gold reward.

Policies are log-linear, pi(y|x) proportional to exp(logit of the reference + theta . phi(x, y)), so expectations and
KL are sums and nothing is sampled to evaluate. Suffixes: P prompts, M responses of a prompt, D features, N pairs.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.types import Candidate, Group, Message, Prompt, SequenceLogprobs

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def log_softmax(logits_P_M: Floats) -> Floats:
    """Log-probabilities over the last axis."""
    shifted = logits_P_M - logits_P_M.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def draw(logprobs_P_M: Floats, n: int, rng: np.random.Generator) -> Indices:
    """(P, n) responses per prompt, independent, with replacement."""
    cumulated_P_M = np.cumsum(np.exp(logprobs_P_M), axis=-1)
    levels_P_n = rng.random((len(logprobs_P_M), n)) * cumulated_P_M[:, -1:]
    drawn_P_n = np.empty(levels_P_n.shape, dtype=np.intp)
    for p, (cumulated, levels) in enumerate(zip(cumulated_P_M, levels_P_n, strict=True)):
        drawn_P_n[p] = np.searchsorted(cumulated, levels)
    return np.minimum(drawn_P_n, logprobs_P_M.shape[1] - 1)


def at(values: NDArray[Any], indices_P_n: Indices) -> NDArray[Any]:
    """``values`` (P, M) or (P, M, D) at ``indices_P_n``: (P, n) or (P, n, D)."""
    return values[np.arange(len(values))[:, None], indices_P_n]


def prefers_first(gaps: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A Bradley-Terry labeller's verdicts: true with probability sigmoid(gap)."""
    return rng.random(gaps.shape) < 1 / (1 + np.exp(-gaps))


class Standing(NamedTuple):
    """A policy at a given distance from its reference."""

    probabilities_P_M: Floats
    reference_P_M: Floats

    def uplift(self, values_P_M: Floats) -> float:
        """Mean gain over the reference, in units of the reference's own mean within-prompt standard deviation."""
        before_P = (self.reference_P_M * values_P_M).sum(-1)
        sd_P = np.sqrt((self.reference_P_M * (values_P_M - before_P[:, None]) ** 2).sum(-1))
        return float(((self.probabilities_P_M * values_P_M).sum(-1) - before_P).mean() / sd_P.mean())

    def drift(self, values_P_M: Floats) -> float:
        """Mean gain over the reference, in the values' own unit."""
        return float(((self.probabilities_P_M - self.reference_P_M) * values_P_M).sum(-1).mean())


def at_kl(reference_logits_P_M: Floats, direction_P_M: Floats, kl: float = 2.0) -> Standing:
    """The policy reference + c * direction whose mean KL to the reference is ``kl`` nats; c > 0 by bisection.

    Methods differ in how far they move; at equal KL only the direction is compared.
    """
    reference = log_softmax(reference_logits_P_M)

    def policy(scale: float) -> Floats:
        return log_softmax(reference_logits_P_M + scale * direction_P_M)

    def distance(scale: float) -> float:
        moved = policy(scale)
        return float((np.exp(moved) * (moved - reference)).sum(-1).mean())

    return Standing(np.exp(policy(_bisect(distance, kl))), np.exp(reference))


def _bisect(increasing: Callable[[float], float], target: float, halvings: int = 20) -> float:
    low, high = 0.0, 1.0
    while increasing(high) < target:
        low, high = high, 2 * high
        if high > 1e9:
            raise ValueError(f"no scale of this direction reaches a KL of {target:g} nats: it orders nothing")
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < target else (low, middle)
    return high


PairLoss = Literal["sigmoid", "hinge"]
HINGE_WIDTH = 0.05
"""Of the softplus that smooths the hinge's corner, so that Newton's method applies."""


def fit_pairs(differences_N_D: Floats, loss: PairLoss = "sigmoid", ridge: float = 1e-4) -> Floats:
    """theta (D,) that minimises the mean loss of theta . (phi chosen - phi rejected) plus ridge/2 |theta|^2.

    ``sigmoid`` is DPO's loss and ``hinge`` RSO's hinge-norm (arXiv:2309.06657, eq. 11), at a gamma of 1: the scale of
    theta takes gamma up. Damped Newton; the ridge keeps separable pairs finite.
    """
    x, theta = differences_N_D, np.zeros(differences_N_D.shape[1])

    def objective(theta_D: Floats) -> float:
        return float(_pair_loss(x @ theta_D, loss)[0].mean() + ridge / 2 * theta_D @ theta_D)

    for _ in range(100):
        _, slope_N, bend_N = _pair_loss(x @ theta, loss)
        gradient = x.T @ slope_N / len(x) + ridge * theta
        hessian = (x * bend_N[:, None]).T @ x / len(x) + ridge * np.eye(len(theta))
        step, here, size = np.linalg.solve(hessian, gradient), objective(theta), 1.0
        while size > 1e-6 and objective(theta - size * step) > here:
            size /= 2
        theta = theta - size * step
        if np.abs(size * step).max() < 1e-7:
            break
    return theta


def _pair_loss(margins_N: Floats, loss: PairLoss) -> tuple[Floats, Floats, Floats]:
    """Value, first and second derivative by the margin."""
    width, corner = (HINGE_WIDTH, 1.0) if loss == "hinge" else (1.0, 0.0)
    z = (corner - margins_N) / width
    falling = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
    return width * np.logaddexp(0, z), -falling, falling * (1 - falling) / width


class Adam(NamedTuple):
    """Weights and moments of a DPO training that can be gone on with."""

    theta: Floats
    first: Floats
    second: Floats
    steps: int = 0

    @classmethod
    def start(cls, size: int) -> "Adam":
        return cls(np.zeros(size), np.zeros(size), np.zeros(size))

    def step(self, gradient: Floats, lr: float) -> "Adam":
        """One update with the usual decays 0.9 and 0.999."""
        n, first, second = (
            self.steps + 1,
            0.9 * self.first + 0.1 * gradient,
            0.999 * self.second + 0.001 * gradient**2,
        )
        move = lr * (first / (1 - 0.9**n)) / (np.sqrt(second / (1 - 0.999**n)) + 1e-8)
        return Adam(self.theta - move, first, second, n)


def train_dpo(
    state: Adam,
    differences_N_D: Floats,
    rng: np.random.Generator,
    *,
    beta: float,
    lr: float,
    batch: int,
    epochs: int,
) -> Adam:
    """Mini-batch DPO with the reference at theta = 0: implicit rewards are beta * theta . phi."""
    for _ in range(epochs):
        order = rng.permutation(len(differences_N_D))
        for k in range(0, len(order), batch):
            x = differences_N_D[order[k : k + batch]]
            wrong = 1 / (1 + np.exp(np.clip(beta * (x @ state.theta), -500, 500)))
            state = state.step(-beta * (x * wrong[:, None]).mean(0), lr)
    return state


def as_groups(candidates_P_n: Indices, *, copies: bool = False, **rewards_P_M: Floats) -> list[Group]:
    """Drawn responses as the groups that selectors take, with ``rewards_P_M`` looked up for them.

    A response's text is its number, so a repeated draw is a repeated text; with ``copies`` every draw has a text of its
    own, as when the same thing is said in other words.
    """
    return [
        Group(
            prompt=Prompt(id=str(p), messages=(Message(role="user", content=str(p)),)),
            prompt_ids=(0,),
            candidates=tuple(_candidate(i, int(m), copies) for i, m in enumerate(drawn)),
            rewards={name: tuple(values[p, drawn].tolist()) for name, values in rewards_P_M.items()},
        )
        for p, drawn in enumerate(candidates_P_n)
    ]


def _candidate(index: int, response: int, copies: bool) -> Candidate:
    text, tokens = (f"{response} {index}", (response, index)) if copies else (str(response), (response,))
    return Candidate(index=index, text=text, token_ids=tokens, finish_reason="stop")


def logprobs_of(logits_P_M: Floats, candidates_P_n: Indices, *, tokens: int = 1) -> list[SequenceLogprobs]:
    """Log-probabilities of the groups that ``as_groups`` makes, whose completions have ``tokens`` tokens (2 with
    ``copies``)."""
    drawn_P_n = at(log_softmax(logits_P_M), candidates_P_n)
    lengths = (tokens,) * candidates_P_n.shape[1]
    return [SequenceLogprobs(prompt_id=str(p), logprobs=tuple(row), lengths=lengths) for p, row in enumerate(drawn_P_n)]
