"""The kinds of reward model, each opened as two functions: what it reads of a group, and how inputs are measured."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from alignment.errors import UserError
from alignment.rendering import completion_ids, load_tokenizer, prompt_text, render
from alignment.rewards import Pairwise, RewardModel, Verifier
from alignment.types import Candidate, Group, seed_of
from infra.model_actor import Ids
from infra.model_folder import context_length
from infra.redaction import redacted
from infra.vocabulary import tokenizer_digest
from infra.weights import Model, folder_of

Outcome = float | str
"""A score, or the reason why there is none."""


class RewardSource(NamedTuple):
    """A reward model and its weights, by the field of ``config`` that names them: ``model``, or ``policy`` and
    ``reference``. A verifier has none."""

    config: RewardModel
    models: Mapping[str, Model] = {}
    members: Mapping[str, "RewardSource"] = {}
    """Of an ensemble, by the name its configuration gives them."""


class Input(NamedTuple):
    """What is measured for one candidate: prompt and completion, or the two orders of a comparison."""

    first: tuple[int, ...]
    second: tuple[int, ...]


class Measured(NamedTuple):
    """An opened reward model."""

    read: Callable[[Group], Sequence[Outcome | Input]]
    """(G,) inputs; outcomes where none needs measuring."""
    measure: Callable[[Sequence[Input], bool], list[float]]
    """One score per input; the flag asks for each to be run alone."""


class Numbers(Protocol):
    """The training stack, as far as rewards need it."""

    def scores(self, model: Model, sequences: Sequence[Ids], *, batch_size: int | None = None) -> list[float]: ...

    def log_odds(
        self, model: Model, sequences: Sequence[Ids], first: int, second: int, *, batch_size: int | None = None
    ) -> list[float]: ...

    def sums(self, model: Model, rows: Sequence[tuple[Ids, Sequence[Ids]]]) -> list[list[float]]: ...


def scalar(model: Model, numbers: Numbers, *, policy: Path | None) -> Measured:
    """A sequence classifier's output at the last token of prompt + completion."""

    def measure(inputs: Sequence[Input], alone: bool) -> list[float]:
        return numbers.scores(model, [one.first + one.second for one in inputs], batch_size=1 if alone else None)

    return Measured(Reader(folder_of(model), policy).read, measure)


def implicit(beta: float, model: Model, reference: Model, numbers: Numbers, *, policy: Path | None) -> Measured:
    """beta * (log-probability under ``model`` - under ``reference``). Raises UserError when their tokenizers differ."""
    folder, other = folder_of(model), folder_of(reference)
    if tokenizer_digest(folder) != tokenizer_digest(other):
        raise UserError(
            f"implicit reward: policy {folder} and reference {other} have different tokenizers, so their "
            "log-probabilities are of different things. Use a reference of the same family"
        )

    def measure(inputs: Sequence[Input], alone: bool) -> list[float]:
        rows: list[tuple[Ids, Sequence[Ids]]] = [
            (prompt, [one.second for one in members]) for prompt, members in groupby(inputs, key=lambda one: one.first)
        ]
        if alone:
            rows = [(one.first, [one.second]) for one in inputs]
        ours, theirs = numbers.sums(model, rows), numbers.sums(reference, rows)
        return [
            beta * (a - b)
            for ours_G, theirs_G in zip(ours, theirs, strict=True)
            for a, b in zip(ours_G, theirs_G, strict=True)
        ]

    return Measured(Reader(folder, policy).read, measure)


def baseline_of(seed: tuple[int | str, ...], prompt_id: str, count: int) -> int:
    """Which of ``count`` candidates the others of its prompt are compared with."""
    return int(np.random.default_rng(seed_of(*seed, "baseline", prompt_id)).integers(count))


def comparing(config: Pairwise, folder: Path) -> Callable[[str, str, str], Outcome | Input]:
    """Of a prompt and two answers, the tokens of their comparison up to where the verdict begins, in both orders, the
    given one first; a reason where they exceed the context."""
    tokenizer, context = load_tokenizer(folder), context_length(folder)

    def ids(prompt: str, a: str, b: str) -> tuple[int, ...]:
        text = config.template.format(prompt=prompt, a=a, b=b)
        return tuple(tokenizer(text, verbose=False)["input_ids"])

    return lambda prompt, a, b: _fitting(Input(ids(prompt, a, b), ids(prompt, b, a)), context, max)


def answer_ids(config: Pairwise, folder: Path) -> tuple[int, int]:
    """The tokens that name the first and the second answer. UserError where one of them is several."""
    tokenizer = load_tokenizer(folder)
    return _one_token(tokenizer, config.first, folder), _one_token(tokenizer, config.second, folder)


def pairwise(config: Pairwise, model: Model, numbers: Numbers, *, seed: tuple[int | str, ...]) -> Measured:
    """Log-odds of beating the baseline candidate, averaged over both orders and clipped; the baseline's own is 0."""
    folder = folder_of(model)
    compare, (first, second) = comparing(config, folder), answer_ids(config, folder)

    def read(group: Group) -> list[Outcome | Input]:
        if not group.candidates:
            return []
        prompt = prompt_text(group.prompt)
        at = baseline_of(seed, group.prompt.id, len(group.candidates))
        baseline = group.candidates[at].text
        read_G = [compare(prompt, c.text, baseline) for c in group.candidates]
        read_G[at] = 0.0
        return read_G

    def measure(inputs: Sequence[Input], alone: bool) -> list[float]:
        sequences = [order for one in inputs for order in one]
        odds = numbers.log_odds(model, sequences, first, second, batch_size=1 if alone else None)
        both = (np.array(odds[0::2]) - np.array(odds[1::2])) / 2
        return np.clip(both, -config.clip, config.clip).tolist()

    return Measured(read, measure)


def verifier(config: Verifier) -> Measured:
    """A Python function of the prompt and the completion's text. An exception is a failed score. Raises UserError
    when there is no such function."""
    module, name = config.function.split(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as e:
        raise UserError(f"verifier {config.function!r}: {e}. Name a function as module:name") from e

    def check(group: Group, candidate: Candidate) -> Outcome:
        try:
            return float(function(group.prompt, candidate.text, **config.arguments))
        except Exception as e:  # whatever a user's function raises is the answer we record
            return redacted(f"{type(e).__name__}: {e}")

    def measure(inputs: Sequence[Input], alone: bool) -> list[float]:
        raise TypeError("a verifier measures nothing")

    return Measured(lambda group: [check(group, c) for c in group.candidates], measure)


class Reader:
    """What a model reads of a candidate: the sampler's own token ids where both have one tokenizer. A model of another
    family needs the text rendered and tokenised anew by its own chat template."""

    def __init__(self, folder: Path, policy: Path | None):
        self._tokenizer = load_tokenizer(folder)
        self._context = context_length(folder)
        self._shares_ids = policy is not None and tokenizer_digest(folder) == tokenizer_digest(policy)

    def read(self, group: Group) -> list[Outcome | Input]:
        try:
            prompt = (
                group.prompt_ids if self._shares_ids and group.prompt_ids else render(self._tokenizer, group.prompt)
            )
        except UserError as e:
            return [str(e)] * len(group.candidates)
        return [self._one(group, prompt, candidate) for candidate in group.candidates]

    def _one(self, group: Group, prompt: tuple[int, ...], candidate: Candidate) -> Outcome | Input:
        if self._shares_ids and candidate.token_ids:
            return _fitting(Input(prompt, candidate.token_ids), self._context, sum)
        try:
            ids = completion_ids(self._tokenizer, group.prompt, candidate.text)
        except UserError as e:
            return str(e)
        if candidate.finish_reason == "length":
            ids = ids[:-1]  # the template ended it; the sampler did not
        return _fitting(Input(prompt, ids), self._context, sum)


def _fitting(read: Input, context: int, total: Callable[[list[int]], int]) -> Outcome | Input:
    tokens = total([len(read.first), len(read.second)])
    if tokens > context:
        return f"{tokens} tokens exceed the reward model's context of {context}"
    return read


def _one_token(tokenizer: Any, answer: str, folder: Path) -> int:
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise UserError(
            f"pairwise reward: the answer {answer!r} is {len(ids)} tokens of {folder}, it must be one. "
            "Choose other answers with reward.first and reward.second"
        )
    return ids[0]
