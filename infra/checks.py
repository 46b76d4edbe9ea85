"""Probes of engines: claims that are measured where they run, and kept in the manifest."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import JsonValue

from alignment.execution import Engine
from alignment.probes import Evidence, Probe, ProbeFailed
from infra.vllm_actor import Draw, GreedyTrace

Ids = Sequence[int]
Floats = Sequence[float] | np.ndarray

PROBE_LENGTHS = (1, 5, 17, 33)
"""Tokens of the fixed prompts: within one cache block, and across two and three."""
PROBE_TOKENS = 16
WEIGHT_BOUNDS = {"float32": (1e-3, 1e-3), "bfloat16": (1.0, 0.15)}
"""In nats: the largest difference of one token's log-probability, and of the mean over all tokens. In float32 the two
stacks agree to 3e-5. In bf16 they round apart: means of 0.01 (a trained model) and 0.08 (random weights) were
measured, single tokens at 0.1 and 0.5; wrong weights differ by whole nats on average."""
SCORE_BOUND = 1e-4
"""Relative to the score, absolute below 1."""
PADDING_BOUNDS = {"float32": 1e-3, "bf16": 0.15}
"""Nats, mean over tokens, between a pass over padded rows and passes over single ones. Rows that see padding, or the
positions of a longer neighbour, are off by whole nats."""
RELOAD_BOUNDS = {"float32": 1e-4, "bf16": 0.05}
"""Nats per token between trainer and reloaded model; merged adapters round once more. A wrong weight is off by 0.1 and
more at its worst token."""


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
    model: str,
    prompts: Sequence[Ids],
    traces: Sequence[GreedyTrace],
    trained: Sequence[Sequence[float]],
    engine: Engine,
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
    probe = Probe(name="weights", worst=worst.difference, mean=mean, bound=bound, count=2 * len(ours))
    if worst.difference <= bound and mean <= mean_bound:
        return probe
    raise _failed(
        f"{model}: the sampler gives token {worst.at} of the probe log-probability {worst.one:.5f}, the training "
        f"stack {worst.other:.5f}; they may differ by {bound:g}, and by {mean_bound:g} on average where {mean:.3g} "
        "was found. Set engine.keep_warm = false if weights were replaced in place (tied embeddings are then "
        "read wrongly); else sampler and trainer disagree on this model",
        probe,
        worst,
        [
            {"prompt_ids": [*prompt], "token_ids": [*trace.token_ids], "sampler_decoded": [*trace.decoded],
             "sampler_prefilled": [*trace.prefilled], "training_stack": [*logprobs_T]}
            for prompt, trace, logprobs_T in zip(prompts, traces, trained, strict=True)
        ],
    )  # fmt: skip


def check_ends(model: str, draws: Sequence[Draw], ends: frozenset[int], eos: int) -> None:
    """Probe (c) of what was sampled: a completion that stopped ends with one of ``ends``, the tokens that end a turn,
    and none goes on after ``eos``. Raises ProbeFailed with the tokens."""
    for number, draw in enumerate(draws):
        stopped = draw.finish_reason == "stop"
        last, within = draw.token_ids[-1] if draw.token_ids else None, draw.token_ids[: -1 if stopped else None]
        if (not stopped or last in ends) and eos not in within:
            continue
        way_out = "Make tokenizer_config.json, config.json and generation_config.json name the same eos_token"
        said = (
            f"{model}: a completion that stopped ends with token {last}, which is none of {sorted(ends)}. {way_out}"
            if stopped and last not in ends
            else f"{model}: a completion goes on after EOS ({eos}), token {within.index(eos)} of its {len(within)}. "
            f"{way_out}"
        )
        row: dict[str, JsonValue] = {
            "completion": number,
            "token_ids": [*draw.token_ids],
            "text": draw.text,
            "finish_reason": draw.finish_reason,
            "ends": [*sorted(ends)],
        }
        raise ProbeFailed(said, Evidence(probe="ends", said=said, compared=(row,)))


def check_scores(
    model: str, inputs: Sequence[tuple[Ids, Ids]], alone: Sequence[float], together: Sequence[float]
) -> Probe:
    """Probe (b): a sequence's reward does not depend on what shares its batch. Raises ProbeFailed with both numbers."""
    worst = _worst(alone, together, relative=True)
    mean = float(np.mean(np.abs(np.array(alone) - np.array(together))))
    probe = Probe(name=f"scores {model}", worst=worst.difference, mean=mean, bound=SCORE_BOUND, count=len(alone))
    if worst.difference <= SCORE_BOUND:
        return probe
    raise _failed(
        f"reward {model!r}: completion {worst.at} scores {worst.one:.6f} alone and {worst.other:.6f} in a batch; "
        f"they may differ by {SCORE_BOUND:g} of the score. Set engine.batch_size = 1 or mend the model's padding",
        probe,
        worst,
        [
            {"first": [*first], "second": [*second], "alone": a, "in_a_batch": b}
            for (first, second), a, b in zip(inputs, alone, together, strict=True)
        ],
    )


def check_padding(
    model: str,
    rows: Sequence[tuple[Ids, Ids]],
    padded: Sequence[Sequence[float]],
    plain: Sequence[Sequence[float]],
    precision: str,
) -> Probe:
    """Probe (d): rows of a group that go through the model together, padded, have the log-probabilities of rows that
    go through it one by one. Raises ProbeFailed with both numbers."""
    ones, others = ([p for logprobs_T in side for p in logprobs_T] for side in (padded, plain))
    # what is no number both ways is no matter of padding: the loss will tell its step and prompt
    same = [math.isnan(one) and math.isnan(other) for one, other in zip(ones, others, strict=True)]
    ones, others = ([0.0 if s else p for p, s in zip(side, same, strict=True)] for side in (ones, others))
    worst, mean = _worst(ones, others), float(np.mean(np.abs(np.array(ones) - np.array(others))))
    probe = Probe(name="padding", worst=worst.difference, mean=mean, bound=PADDING_BOUNDS[precision], count=len(ones))
    if mean <= probe.bound:
        return probe
    raise _failed(
        f"{model}: a token has log-probability {worst.one:.5f} in a row that is padded beside others, and "
        f"{worst.other:.5f} in the same row alone; on average they are {mean:.3g} apart and may be {probe.bound:g}. "
        "This model reads padding, or scales positions by the longest row of a batch: keep prompt and completion "
        "within its original context (sampler.decoding.max_tokens), or take another model",
        probe,
        worst,
        [
            {"prompt_ids": [*prompt], "completion": [*completion], "padded": [*a], "alone": [*b]}
            for (prompt, completion), a, b in zip(rows, padded, plain, strict=True)
        ],
    )


def check_reload(
    model: str, rows: Sequence[tuple[Ids, Ids]], trained: Sequence[float], reloaded: Sequence[float], precision: str
) -> Probe:
    """Probe (e): what was exported and read back gives each row the number that it had where it was trained, per token
    of its completion. Raises ProbeFailed with both."""
    per_token = np.array([len(completion) for _, completion in rows])
    worst = _worst(np.array(trained) / per_token, np.array(reloaded) / per_token)
    mean = float(np.mean(np.abs(np.array(trained) - np.array(reloaded)) / per_token))
    bound = RELOAD_BOUNDS[precision]
    probe = Probe(name="reload", worst=worst.difference, mean=mean, bound=bound, count=len(rows))
    if worst.difference <= bound:
        return probe
    raise _failed(
        f"{model}: row {worst.at} has {reloaded[worst.at]:.5f} under the exported model where the trainer gave "
        f"{trained[worst.at]:.5f} ({worst.difference:g} per token apart, bound {bound:g}). Nothing is committed: the "
        "export lost or mixed up weights. Start from a model of another kind, or train without adapters",
        probe,
        worst,
        [
            {"prompt_ids": [*prompt], "completion": [*completion], "trainer": a, "reloaded": b}
            for (prompt, completion), a, b in zip(rows, trained, reloaded, strict=True)
        ],
    )


def _failed(said: str, probe: Probe, worst: Worst, compared: Sequence[Mapping[str, JsonValue]]) -> ProbeFailed:
    """With the two numbers that differ most, and all that were compared."""
    numbers = {"worst": probe.worst, "mean": probe.mean, "bound": probe.bound, "one": worst.one, "other": worst.other}
    return ProbeFailed(said, Evidence(probe=probe.name, said=said, numbers=numbers, compared=tuple(compared)))


def _worst(ones: Floats, others: Floats, *, relative: bool = False) -> Worst:
    a, b = np.asarray(ones, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if a.shape != b.shape or not a.size:
        raise ValueError(f"{a.size} numbers beside {b.size}")
    difference = np.abs(a - b) / (np.maximum(1, np.abs(b)) if relative else 1)
    difference[np.isnan(difference)] = np.inf
    at = int(np.argmax(difference))
    return Worst(float(difference[at]), float(a[at]), float(b[at]), at)
