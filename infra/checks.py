"""Probes: claims about engines that are measured where they run, and kept in the manifest."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignment.errors import UserError
from alignment.execution import Engine
from alignment.types import Record
from infra.vllm_actor import GreedyTrace

PROBE_LENGTHS = (1, 5, 17, 33)
"""Tokens of the fixed prompts: within one cache block, and across two and three."""
PROBE_TOKENS = 16
WEIGHT_BOUNDS = {"float32": (1e-3, 1e-3), "bfloat16": (1.0, 0.15)}
"""In nats: the largest difference of one token's log-probability, and of the mean over all tokens. In float32 the two
stacks agree to 3e-5. In bf16 they round apart: means of 0.01 (a trained model) and 0.08 (random weights) were
measured, single tokens at 0.1 and 0.5; wrong weights differ by whole nats on average."""
SCORE_BOUND = 1e-4
"""Relative to the score, absolute below 1."""


class ProbeFailed(UserError):
    """An engine is not what it claims to be; nothing made with it is believed."""


class Probe(Record):
    """What a probe measured."""

    name: str
    worst: float
    """Largest difference seen."""
    mean: float
    bound: float
    count: int
    """Numbers compared."""


class Worst(NamedTuple):
    difference: float
    one: float
    other: float
    at: int


def probe_prompts(vocabulary: int, context: int) -> list[tuple[int, ...]]:
    """The fixed prompts of probe (a), the same for every model of that vocabulary: ids drawn once, evenly."""
    rng = np.random.default_rng(vocabulary)
    lengths = [n for n in PROBE_LENGTHS if n + PROBE_TOKENS <= context]
    return [tuple(int(i) for i in rng.integers(0, vocabulary, n)) for n in lengths]


def check_weights(
    model: str, traces: Sequence[GreedyTrace], trained: Sequence[Sequence[float]], engine: Engine
) -> Probe:
    """Probe (a): after a weight load, the sampler's log-probability of each token agrees with the training stack's.

    Raises ProbeFailed with both numbers. What makes it fail: a sampler that kept, mixed up or rounded weights.
    """
    bound, mean_bound = WEIGHT_BOUNDS[engine.dtype]
    ours = [p for logprobs_T in trained for p in logprobs_T]
    decoded = [p for trace in traces for p in trace.decoded]
    prefilled = [p for trace in traces for p in trace.prefilled]
    worst = max(_worst(decoded, ours), _worst(prefilled, ours), key=lambda w: w.difference)
    mean = float(np.mean(np.abs(np.array([decoded, prefilled]) - ours)))
    if not (worst.difference <= bound and mean <= mean_bound):
        raise ProbeFailed(
            f"{model}: the sampler gives token {worst.at} of the probe log-probability {worst.one:.5f}, the training "
            f"stack {worst.other:.5f}; they may differ by {bound:g}, and by {mean_bound:g} on average where {mean:.3g} "
            "was found. Set engine.keep_warm = false if weights were replaced in place (tied embeddings are then "
            "read wrongly); else sampler and trainer disagree on this model"
        )
    return Probe(name="weights", worst=worst.difference, mean=mean, bound=bound, count=2 * len(ours))


def check_scores(model: str, alone: Sequence[float], together: Sequence[float]) -> Probe:
    """Probe (b): a sequence's reward does not depend on what shares its batch. Raises ProbeFailed with both numbers."""
    worst = _worst(alone, together, relative=True)
    if not worst.difference <= SCORE_BOUND:
        raise ProbeFailed(
            f"reward {model!r}: completion {worst.at} scores {worst.one:.6f} alone and {worst.other:.6f} in a batch; "
            f"they may differ by {SCORE_BOUND:g} of the score. Set engine.batch_size = 1 or mend the model's padding"
        )
    mean = float(np.mean(np.abs(np.array(alone) - np.array(together))))
    return Probe(name=f"scores {model}", worst=worst.difference, mean=mean, bound=SCORE_BOUND, count=len(alone))


def _worst(ones: Sequence[float], others: Sequence[float], *, relative: bool = False) -> Worst:
    a, b = np.asarray(ones, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if a.shape != b.shape or not a.size:
        raise ValueError(f"{a.size} numbers beside {b.size}")
    difference = np.abs(a - b) / (np.maximum(1, np.abs(b)) if relative else 1)
    difference[np.isnan(difference)] = np.inf
    at = int(np.argmax(difference))
    return Worst(float(difference[at]), float(a[at]), float(b[at]), at)
