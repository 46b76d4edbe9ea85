"""A small reward model trained from the policy's weights, in the calling process."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.errors import UserError
from alignment.logprobs import Row
from alignment.models import Architecture, Scratch
from alignment.probes import Probe
from alignment.rendering import asked
from alignment.types import Message, Prompt
from alignment.worlds import LabelledPair
from infra.compared import Ids, PairOfRows, bradley_terry, compared, joined
from infra.scratch import PROBED, Progress, check_fit, fit, padded, save, token_id, turns

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast


def train_reward_model(
    pairs: Sequence[LabelledPair], policy: Path, source: Scratch, out: Path, *, progress: Progress
) -> Probe:
    """Train a sequence classifier with one output, started from the policy's weights, and save it to ``out``, read
    back.

    Loss: -log sigmoid(r(chosen) - r(rejected)), the Bradley-Terry likelihood, averaged over a batch's pairs; r is
    read at the last token of prompt + completion + EOS. Pairs of one prompt that follow each other go through the
    model together, as far as a batch holds them. The architecture is the policy's; ``source.architecture`` must say
    the same. Raises UserError when it does not or when a text exceeds the context.
    """
    import torch
    from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(policy)
    parts = [
        part
        for prompt, found in groupby(pairs, key=lambda pair: pair.prompt)
        for part in compared(_rows(tokenizer, prompt, found), source.batch_tokens)
    ]
    check_fit([max(len(row) for row in part.rows) for part in parts], source.architecture.context, "labelled pair")
    torch.manual_seed(source.seed)
    model = LlamaForSequenceClassification.from_pretrained(policy, num_labels=1, dtype=torch.float32)
    _check_same_shape(source.architecture, model.config)
    pad = token_id(tokenizer, "pad")

    def rewards_of(model: "LlamaForSequenceClassification", rows: Sequence[Ids]) -> "Tensor":
        return model(padded(rows, pad)).logits.float().squeeze(-1)

    def loss_of(batch: Sequence[int]) -> "Tensor":
        both = joined(parts[i] for i in batch)
        rewards = rewards_of(model, both.rows)
        return bradley_terry(rewards[both.chosen] - rewards[both.rejected], both.p)

    fit(model, source, [part.tokens for part in parts], loss_of, progress)
    probed = parts[0].rows[:PROBED]
    rows = [Row(ids[:-1], ids[-1:]) for ids in probed]
    return save(model, tokenizer, out, lambda model: rewards_of(model, probed), rows)


def _rows(tokenizer: "PreTrainedTokenizerFast", prompt: Prompt, pairs: Iterable[LabelledPair]) -> Iterator[PairOfRows]:
    @cache
    def row(text: str) -> Ids:
        return tuple(turns(tokenizer, [*asked(prompt), Message(role="assistant", content=text)])[0])

    return (PairOfRows(row(pair.chosen), row(pair.rejected)) for pair in pairs)


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
