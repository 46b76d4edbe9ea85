"""A file of preference pairs as a world."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from alignment.errors import UserError
from alignment.pair_rows import PairRow
from alignment.splits import split_held_out
from alignment.types import Message, Prompt
from alignment.worlds import Demonstration, LabelledPair, Preferences
from infra.open_world import OpenWorld
from infra.sources import read_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def open_preferences(world: Preferences) -> OpenWorld:
    """Prompts held out are seen by nobody. Raises UserError when the file cannot be read, or for its first bad row."""
    rows = read_pairs(world.path, skip_bad_rows=world.skip_bad_rows).pairs
    prompts = list({row.prompt.id: row.prompt for row in rows}.values())
    kept, held_out = split_held_out(prompts, world.held_out)
    ids = {prompt.id for prompt in kept}
    seen = [row for row in rows if row.prompt.id in ids]
    return OpenWorld(
        prompts=partial(_prompts, world, held_out),
        demonstrations=partial(_demonstrations, seen),
        labelled_pairs=partial(_labelled_pairs, world, seen),
        tokenizer=partial(_tokenizer, world, seen),
    )


def _prompts(world: Preferences, prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    if len(prompts) < count:
        raise UserError(f"prompts.count = {count}, but {world.path} holds out {len(prompts)} prompts; lower it")
    return list(prompts[:count])


def _demonstrations(rows: Sequence[PairRow], count: int) -> list[Demonstration]:
    """The first ``count`` chosen completions; all of them when there are fewer."""
    return [
        Demonstration(messages=(*row.prompt.messages, Message(role="assistant", content=row.chosen)))
        for row in rows[:count]
    ]


def _labelled_pairs(world: Preferences, rows: Sequence[PairRow], count: int) -> list[LabelledPair]:
    if len(rows) < count:
        raise UserError(f"examples = {count}, but {world.path} has {len(rows)} pairs to train on; lower it")
    return [LabelledPair(prompt=row.prompt, chosen=row.chosen, rejected=row.rejected) for row in rows[:count]]


def _tokenizer(world: Preferences, rows: Sequence[PairRow], context: int) -> "PreTrainedTokenizerFast":
    from infra.tokenizing import byte_level

    texts = [m.content for row in rows for m in row.prompt.messages] + [
        t for row in rows for t in (row.chosen, row.rejected)
    ]
    return byte_level(texts, world.vocabulary, context, chat=True)
