"""Rows of a relabeler, put together: all pairs of one question under one goal are one group of its own."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from alignment.types import Candidate, Group, PreferencePair, Prompt

Render = Callable[[Prompt], tuple[int, ...]]
"""The policy's chat template: token ids of a prompt."""


class Row(NamedTuple):
    """A pair under a goal; its indices are those of the group it came from."""

    prompt: Prompt
    group: Group
    pair: PreferencePair


def gathered(rows: Sequence[Row], ids_of: Render) -> tuple[tuple[Group, ...], tuple[PreferencePair, ...]]:
    """Rows under one prompt and goal as one group, and each row's pair with its indices there."""
    rows_of: dict[str, list[Row]] = {}
    for row in rows:
        rows_of.setdefault(row.prompt.id, []).append(row)
    groups: list[Group] = []
    position: dict[tuple[str, int], int] = {}
    for prompt_id, together in rows_of.items():
        prompt, source, _ = together[0]
        if any(row.group.prompt.id != source.prompt.id for row in together):
            raise ValueError(f"prompt {source.prompt.id}: two groups of one question, under different goals")
        used = sorted({i for row in together for i in (row.pair.chosen, row.pair.rejected)})
        position |= {(prompt_id, i): k for k, i in enumerate(used)}
        groups.append(_part(source, prompt, ids_of(prompt), used))
    pairs = [
        row.pair.model_copy(
            update={
                "prompt_id": row.prompt.id,
                "chosen": position[row.prompt.id, row.pair.chosen],
                "rejected": position[row.prompt.id, row.pair.rejected],
                "condition": row.prompt.goal and row.prompt.goal.text,
            }
        )
        for row in rows
    ]
    return tuple(groups), tuple(pairs)


def _part(source: Group, prompt: Prompt, prompt_ids: tuple[int, ...], used: Sequence[int]) -> Group:
    """Some candidates under another prompt: the sampler's log-probability was of the old one, and what a draft was
    refined from stands in the group it came from."""
    moved = {"parent": None, "feedback": None, "logprob": None}
    candidates: list[Candidate] = [
        source.candidates[i].model_copy(update={"index": k, **moved}) for k, i in enumerate(used)
    ]
    rewards = {name: tuple(rewards_G[i] for i in used) for name, rewards_G in source.rewards.items()}
    return Group(prompt=prompt, prompt_ids=prompt_ids, candidates=tuple(candidates), rewards=rewards)
