"""What a reward model is taught by labelled pairs: what it reads of a pair, its loss, and how it orders one."""

import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignment.errors import UserError
from alignment.rendering import prompt_text
from alignment.rewards import Pairwise
from alignment.types import Group, PreferencePair
from infra.compared import Ids, bradley_terry
from infra.model_actor import classify, next_logits, read_model
from infra.model_folder import TOKENIZER_FILES, read_config
from infra.reward_models import Input, Outcome, Reader, answer_ids, comparing

if TYPE_CHECKING:
    from torch import Tensor


class Question(NamedTuple):
    """A prompt's completions and the labelled pairs among them."""

    group: Group
    pairs: tuple[PreferencePair, ...]
    writer: Path
    """Folder of the model whose tokenizer wrote the completions' ids."""


class Objective(NamedTuple):
    """A model that is to order pairs: what it reads of one, and what is learnt from it."""

    model: Any
    read: Callable[[Question], Sequence[tuple[Ids, Ids] | str]]
    """Per pair the two rows of tokens, or why there are none."""
    forward: "Callable[[Tensor, Tensor], Tensor]"
    """Of ids and mask, (rows, T) each, what loss and margin need: (rows, ...)."""
    loss: "Callable[[Tensor, Tensor, Sequence[float]], Tensor]"
    """Of both sides' outputs and soft labels, averaged over pairs."""
    margin: "Callable[[Tensor, Tensor], Tensor]"
    """(pairs,) above zero where the model orders a pair as its label does."""


def scalar_head(start: Path, device: str) -> Objective:
    """A sequence classifier with one output, read where it will be read to score: the last token of prompt and
    completion. Its loss is the Bradley-Terry likelihood of the labels."""
    model = _classifier(start).to(device)

    @cache
    def reader(writer: Path) -> Reader:
        return Reader(start, writer)

    def read(question: Question) -> list[tuple[Ids, Ids] | str]:
        read_G = reader(question.writer).read(question.group)
        return [_two_rows(read_G[pair.chosen], read_G[pair.rejected]) for pair in question.pairs]

    return Objective(
        model=model,
        read=read,
        forward=lambda ids, mask: classify(model, ids, mask).float(),
        loss=lambda chosen, rejected, p: bradley_terry(chosen - rejected, p),
        margin=lambda chosen, rejected: chosen - rejected,
    )


def ranker(config: Pairwise, start: Path, device: str) -> Objective:
    """A language model that names the better of two answers, asked as it will be asked to score and in both orders, so
    that neither place is favoured. The loss is on the answer's token alone, over the whole vocabulary."""
    model = read_model("causal", start, "float32").to(device)
    compare, answers = comparing(config, start), list(answer_ids(config, start))

    def read(question: Question) -> list[tuple[Ids, Ids] | str]:
        prompt, texts = prompt_text(question.group.prompt), [c.text for c in question.group.candidates]
        return [_orders(compare(prompt, texts[pair.chosen], texts[pair.rejected])) for pair in question.pairs]

    def loss(chosen: "Tensor", rejected: "Tensor", p: Sequence[float]) -> "Tensor":
        p_B = chosen.new_tensor(p)
        right = p_B * (chosen[:, 0] + rejected[:, 1])  # chosen is shown first in the one, second in the other
        wrong = (1 - p_B) * (chosen[:, 1] + rejected[:, 0])
        return -(right + wrong).mean() / 2

    return Objective(
        model=model,
        read=read,
        forward=lambda ids, mask: next_logits(model, ids, mask).float().log_softmax(-1)[:, answers],
        loss=loss,
        margin=lambda chosen, rejected: (chosen[:, 0] - chosen[:, 1] - rejected[:, 0] + rejected[:, 1]) / 2,
    )


def save(objective: Objective, start: Path, out: Path) -> None:
    """Weights as safetensors, and the tokenizer just as it was, so that it still is the same one."""
    objective.model.save_pretrained(out)
    for name in TOKENIZER_FILES:
        if (start / name).is_file():
            shutil.copyfile(start / name, out / name)


def _classifier(start: Path) -> Any:
    """Raises UserError for a classifier of several classes, and for a weight of the body that is not there."""
    import torch
    from transformers import AutoModelForSequenceClassification

    config = read_config(start)
    classifies = any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or [])
    classes = len(config.get("id2label") or (0, 1))  # transformers leaves the names out where there are two
    if classifies and classes != 1:
        raise UserError(f"{start} tells {classes} classes apart, a reward model has one output: start from another")
    loaded: Any = AutoModelForSequenceClassification.from_pretrained(
        start,
        num_labels=1,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, report = loaded
    body = f"{model.base_model_prefix}."
    if missing := sorted(key for key in report["missing_keys"] if key.startswith(body)):
        raise UserError(f"{start}: its weights lack {', '.join(missing[:3])}. Give a whole model to start from")
    return model


def _orders(comparison: Outcome | Input) -> tuple[Ids, Ids] | str:
    return (comparison.first, comparison.second) if isinstance(comparison, Input) else str(comparison)


def _two_rows(chosen: Outcome | Input, rejected: Outcome | Input) -> tuple[Ids, Ids] | str:
    if isinstance(chosen, Input) and isinstance(rejected, Input):
        return chosen.first + chosen.second, rejected.first + rejected.second
    return str(rejected if isinstance(chosen, Input) else chosen)
