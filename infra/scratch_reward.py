"""A small reward model trained from the policy's weights, in the calling process."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from alignment.errors import UserError
from alignment.models import Architecture, Scratch
from alignment.rendering import asked
from alignment.types import Message, Prompt
from alignment.worlds import LabelledPair
from infra.scratch import Progress, check_fit, fit, padded, save, token_id, turns

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast


class Compared(NamedTuple):
    """The labelled completions of one prompt: each is read once, in however many pairs it stands."""

    rows: list[list[int]]
    """Token ids of prompt, completion and EOS."""
    chosen: list[int]
    """Per pair, the row of the preferred completion."""
    rejected: list[int]

    @property
    def tokens(self) -> int:
        """Positions it takes, padding included."""
        return len(self.rows) * max(len(row) for row in self.rows)


def train_reward_model(
    pairs: Sequence[LabelledPair], policy: Path, source: Scratch, out: Path, *, progress: Progress
) -> None:
    """Train a sequence classifier with one output, started from the policy's weights, and save it to ``out``.

    Loss: -log sigmoid(r(chosen) - r(rejected)), the Bradley-Terry likelihood, averaged over a batch's pairs; r is
    read at the last token of prompt + completion + EOS. Pairs of one prompt that follow each other go through the
    model together (Ouyang et al. 2022, arXiv:2203.02155, section 3.5): n completions in n (n - 1) / 2 pairs cost n
    passes. The architecture is the policy's; ``source.architecture`` must say the same. Raises UserError when it does
    not or when a text exceeds the context.
    """
    import torch
    from torch.nn import functional as F
    from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(policy)
    groups = [_compared(tokenizer, prompt, found) for prompt, found in groupby(pairs, key=lambda pair: pair.prompt)]
    check_fit([max(len(row) for row in group.rows) for group in groups], source.architecture.context, "labelled pair")
    torch.manual_seed(source.seed)
    model = LlamaForSequenceClassification.from_pretrained(policy, num_labels=1, dtype=torch.float32)
    _check_same_shape(source.architecture, model.config)
    pad = token_id(tokenizer, "pad")

    def loss_of(batch: Sequence[int]) -> "Tensor":
        rows, chosen, rejected = _joined([groups[i] for i in batch])
        rewards = model(padded(rows, pad)).logits.float().squeeze(-1)
        return -F.logsigmoid(rewards[chosen] - rewards[rejected]).mean()

    fit(model, source, [group.tokens for group in groups], loss_of, progress)
    save(model, tokenizer, out)


def _compared(tokenizer: "PreTrainedTokenizerFast", prompt: Prompt, pairs: Iterable[LabelledPair]) -> Compared:
    sides = [(pair.chosen, pair.rejected) for pair in pairs]
    place = {text: i for i, text in enumerate(dict.fromkeys(text for side in sides for text in side))}
    rows = [turns(tokenizer, [*asked(prompt), Message(role="assistant", content=text)])[0] for text in place]
    return Compared(rows, [place[a] for a, _ in sides], [place[b] for _, b in sides])


def _joined(groups: Iterable[Compared]) -> tuple[list[list[int]], list[int], list[int]]:
    """All rows, and the pairs' places among them."""
    rows: list[list[int]] = []
    chosen: list[int] = []
    rejected: list[int] = []
    for group in groups:
        chosen += [len(rows) + i for i in group.chosen]
        rejected += [len(rows) + i for i in group.rejected]
        rows += group.rows
    return rows, chosen, rejected


def _check_same_shape(asked: Architecture, found: object) -> None:
    names = {
        "hidden": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
        "context": "max_position_embeddings",
    }
    for ours, theirs in names.items():
        if (want := getattr(asked, ours)) != (have := getattr(found, theirs)):
            raise UserError(
                f"reward model: architecture.{ours} = {want}, but the policy it starts from has {have}; set both alike"
            )
