"""The unit of training is the group: a prompt once, each completion that pairs use once, pairs as indices.

K completions with all their pairs cost K sequences instead of K(K - 1), and the gradient is that of plain pairs:

    grad (1/N) sum_(i,j) l(D_i - D_j)  =  sum_groups grad (1/N) sum_(i,j) in group l(D_i - D_j)

with N the pairs of the whole optimiser step. A mean of group means is another objective as soon as groups differ in
their number of pairs.
"""

from collections.abc import Sequence
from typing import Self, TypeVar

import numpy as np
from pydantic import Field, model_validator

from alignment.errors import UserError
from alignment.losses import AOT, RWR, Loss
from alignment.types import Group, PreferencePair, Record, SequenceLogprobs, TokenLogprobs

T = TypeVar("T")


class TrainingGroup(Record):
    """One prompt, the completions that its n pairs use, and those pairs."""

    prompt_id: str
    prompt_ids: tuple[int, ...] = Field(min_length=1)
    completions: tuple[tuple[int, ...], ...]
    """(K,) token ids, each completion once, in the order of the group's candidates."""
    reference: tuple[float, ...]
    """(K,) log-probability under the reference, by the training stack, in nats."""
    reference_tokens: tuple[tuple[float, ...], ...] | None = None
    """(K,) of (T,): the same token by token, where the loss weighs tokens apart."""
    second_reference: tuple[float, ...] | None = None
    """(K,) log-probability under a second reference, where the loss mixes two."""
    chosen: tuple[int, ...] = Field(min_length=1)
    """(n,) positions in ``completions``."""
    rejected: tuple[int, ...]
    p: tuple[float, ...]
    """(n,) probability that chosen is better."""
    weights: tuple[float, ...]
    """(n,) factor on each pair's loss. It does not enter the number of pairs that losses are divided by."""
    reward_margins: tuple[float, ...] | None = None
    """(n,) reward of chosen minus reward of rejected; None where some pair was made without rewards."""

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if len(self.reference) != len(self.completions) or not all(np.isfinite(self.reference)):
            raise ValueError(f"prompt {self.prompt_id}: references {self.reference} of {len(self.completions)} rows")
        of_pairs = (self.rejected, self.p, self.weights, self.reward_margins)
        if {len(values) for values in of_pairs if values is not None} != {len(self.chosen)}:
            raise ValueError(f"prompt {self.prompt_id}: what its pairs have differs in length")
        used = {*self.chosen, *self.rejected}
        if used != set(range(len(self.completions))) or not all(self.completions):
            raise ValueError(f"prompt {self.prompt_id}: pairs use {sorted(used)} of {len(self.completions)} rows")
        return self

    @property
    def width(self) -> int:
        """Tokens of its longest sequence."""
        return len(self.prompt_ids) + max(map(len, self.completions))

    @property
    def tokens(self) -> int:
        """Tokens that a forward pass of all its sequences computes, padding left out."""
        return sum(len(self.prompt_ids) + len(completion) for completion in self.completions)


def training_groups(
    groups: Sequence[Group],
    pairs: Sequence[PreferencePair],
    reference: Sequence[SequenceLogprobs],
    *,
    tokens: Sequence[TokenLogprobs] | None = None,
    second: Sequence[SequenceLogprobs] | None = None,
) -> list[TrainingGroup]:
    """One training group for each prompt that has pairs, in the order of ``groups``.

    ``tokens`` are the reference's log-probabilities token by token, ``second`` those of a second reference, where the
    loss needs them. Groups and log-probabilities of one round: for several rounds, call once each and chain the lists.
    Raises ValueError where a prompt is given twice, a pair has no group, or a group no reference log-probabilities.
    """
    by_prompt = _unique(groups, "group", [group.prompt.id for group in groups])
    logprobs = _of_prompts(reference, "reference log-probabilities")
    tokens_of = _of_prompts(tokens, "reference log-probabilities by token") if tokens is not None else None
    second_of = _of_prompts(second, "second reference log-probabilities") if second is not None else None
    needed = {
        "group": by_prompt,
        "reference log-probabilities": logprobs,
        "reference log-probabilities by token": tokens_of,
        "second reference log-probabilities": second_of,
    }
    pairs_of: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        for what, known in needed.items():
            if known is not None and pair.prompt_id not in known:
                raise ValueError(f"prompt {pair.prompt_id} has pairs and no {what}")
        goal = by_prompt[pair.prompt_id].prompt.goal
        if pair.condition != (goal and goal.text):
            raise ValueError(f"prompt {pair.prompt_id}: its goal is {goal}, its pair's condition {pair.condition!r}")
        pairs_of.setdefault(pair.prompt_id, []).append(pair)
    return [
        _training_group(
            by_prompt[i],
            pairs_of[i],
            logprobs[i],
            None if tokens_of is None else tokens_of[i],
            None if second_of is None else second_of[i],
        )
        for i in by_prompt
        if i in pairs_of
    ]


LogprobRow = TypeVar("LogprobRow", SequenceLogprobs, TokenLogprobs)


def _of_prompts(rows: Sequence[LogprobRow], what: str) -> dict[str, LogprobRow]:
    return _unique(rows, what, [row.prompt_id for row in rows])


def _unique(rows: Sequence[T], what: str, ids: Sequence[str]) -> dict[str, T]:
    keyed = dict(zip(ids, rows, strict=True))
    if len(keyed) < len(rows):
        twice = next(i for i in keyed if list(ids).count(i) > 1)
        raise ValueError(f"prompt {twice}: {what} given twice")
    return keyed


def _training_group(
    group: Group,
    pairs: Sequence[PreferencePair],
    reference: SequenceLogprobs,
    tokens: TokenLogprobs | None,
    second: SequenceLogprobs | None,
) -> TrainingGroup:
    lengths = [len(c.token_ids) for c in group.candidates]
    if any(list(row.lengths) != lengths for row in (reference, second) if row is not None) or (
        tokens is not None and [len(of_tokens) for of_tokens in tokens.logprobs] != lengths
    ):
        raise ValueError(f"prompt {group.prompt.id}: the reference log-probabilities are those of other completions")
    used = sorted({pair.chosen for pair in pairs} | {pair.rejected for pair in pairs})
    position = {candidate: k for k, candidate in enumerate(used)}
    margins = [pair.margin for pair in pairs if pair.margin is not None]
    return TrainingGroup(
        prompt_id=group.prompt.id,
        prompt_ids=group.prompt_ids,
        completions=tuple(group.candidates[i].token_ids for i in used),
        reference=tuple(reference.logprobs[i] for i in used),
        reference_tokens=None if tokens is None else tuple(tokens.logprobs[i] for i in used),
        second_reference=None if second is None else tuple(second.logprobs[i] for i in used),
        chosen=tuple(position[pair.chosen] for pair in pairs),
        rejected=tuple(position[pair.rejected] for pair in pairs),
        p=tuple(pair.p for pair in pairs),
        weights=tuple(pair.weight for pair in pairs),
        reward_margins=tuple(margins) if len(margins) == len(pairs) else None,
    )


def check_loss(loss: Loss, groups: Sequence[TrainingGroup]) -> None:
    """Raise UserError, naming a prompt, where the groups lack what the loss needs of them."""
    for group in groups:
        if isinstance(loss, RWR) and group.reward_margins is None:
            raise UserError(
                f"train.loss.type = 'rwr' needs rewards, and a pair of prompt {group.prompt_id} was made without: use "
                "a selector that pairs by reward, or train.loss.type = 'sft'"
            )
        if isinstance(loss, AOT) and {*group.p, *group.weights} != {1.0}:
            raise UserError(
                f"train.loss.type = 'aot' sorts the pairs of a step, and prompt {group.prompt_id} has pairs of soft "
                f"labels {group.p} and weights {group.weights}: use train.loss.type = 'dpo'"
            )


def optimiser_steps(count: int, *, groups_per_step: int, epochs: int, seed: int) -> list[list[int]]:
    """Which groups each optimiser step trains on, as indices below ``count``; the last step of an epoch may be short.

    Every epoch has an order of its own, which depends on the seed and on nothing of the machine.
    """
    steps: list[list[int]] = []
    for epoch in range(epochs):
        order = [int(i) for i in np.random.default_rng((seed, epoch)).permutation(count)]
        steps += [order[start : start + groups_per_step] for start in range(0, count, groups_per_step)]
    return steps


def micro_batches(
    groups: Sequence[TrainingGroup], step: Sequence[int], *, workers: int, tokens: int
) -> list[list[list[int]]]:
    """A step's groups by worker and forward pass: ``[worker][pass] -> indices into groups``.

    A pass holds at most ``tokens`` positions, padding included, unless one group alone has more: groups are not
    split. Work is dealt longest first to the worker with least, so that none waits long for another.
    """
    shares: list[list[int]] = [[] for _ in range(workers)]
    load = [0] * workers
    for i in sorted(step, key=lambda i: (-groups[i].width, i)):
        worker = load.index(min(load))
        shares[worker].append(i)
        load[worker] += groups[i].tokens
    return [_passes(groups, share, tokens) for share in shares]


def _passes(groups: Sequence[TrainingGroup], share: Sequence[int], tokens: int) -> list[list[int]]:
    """Cut a share, longest first, into passes: the first group of a pass sets its width."""
    passes: list[list[int]] = []
    rows = width = 0
    for i in share:
        rows += len(groups[i].completions)
        if not passes or rows * width > tokens:
            passes.append([])
            rows, width = len(groups[i].completions), groups[i].width
        passes[-1].append(i)
    return passes
