"""transformers and torch inside a Ray actor: log-probabilities and rewards by the training stack.

Sequences arrive as token ids. Every method pads, runs and answers in float32 unless a precision is asked for.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignment.errors import UserError
from infra.weights import Model, folder_of

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["float32", "bf16"]
Ids = Sequence[int]
MODELS_KEPT = 3
"""Policy, reference and one reward model."""


class ModelActor:
    """Models by folder, the last few kept, for every reward and log-probability of a run."""

    def __init__(self, *, threads: int, gpu: bool):
        import torch
        import transformers

        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self._device = "cuda" if gpu else "cpu"
        self._models: OrderedDict[tuple[str, str, str], Any] = OrderedDict()

    def pid(self) -> int:
        return os.getpid()

    def logprobs(
        self, source: Model, rows: Sequence[tuple[Ids, Sequence[Ids]]], *, precision: Precision, batch_size: int
    ) -> list[list[float]]:
        """Per prompt, the log-probability of each of its completions, summed over tokens in float32."""
        from alignment.logprobs import completion_logprobs

        with self._opened("causal", source, precision) as model:
            return [
                completion_logprobs(model, prompt, completions, batch_size=batch_size).tolist() if completions else []
                for prompt, completions in rows
            ]

    def token_logprobs(
        self, source: Model, rows: Sequence[tuple[Ids, Ids]], *, precision: Precision, batch_size: int
    ) -> list[list[float]]:
        """Log-probability of every completion token, one list per (prompt, completion)."""
        from alignment.logprobs import Row, token_logprobs

        pairs = [Row(prompt, completion) for prompt, completion in rows]
        with self._opened("causal", source, precision) as model:
            logprobs_B_T = token_logprobs(model, pairs, batch_size=batch_size).tolist()
        return [logprobs_T[: len(row[1])] for row, logprobs_T in zip(rows, logprobs_B_T, strict=True)]

    def scores(self, source: Model, sequences: Sequence[Ids], *, batch_size: int) -> list[float]:
        """The classifier's one output for each sequence, read at its last token."""
        with self._opened("classifier", source, "float32") as model:
            if (outputs := model.config.num_labels) != 1:
                raise UserError(
                    f"{folder_of(source)}: a reward model has one output, this classifier has {outputs}. "
                    "Train it with num_labels=1"
                )
            return _batched(model, sequences, batch_size, classify)

    def log_odds(
        self, source: Model, sequences: Sequence[Ids], first: int, second: int, *, batch_size: int
    ) -> list[float]:
        """logit(``first``) - logit(``second``) as the token after each sequence."""

        def forward(model: Any, ids: "Tensor", mask: "Tensor") -> "Tensor":
            logits = next_logits(model, ids, mask)
            return logits[:, first] - logits[:, second]

        with self._opened("causal", source, "float32") as model:
            return _batched(model, sequences, batch_size, forward)

    @contextmanager
    def _opened(self, head: Literal["causal", "classifier"], source: Model, precision: Precision) -> Iterator[Any]:
        import torch

        folder = folder_of(source)
        key = (head, str(folder), precision)
        if key not in self._models:
            self._models[key] = read_model(head, folder, precision).eval().to(self._device)
            while len(self._models) > MODELS_KEPT:
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        with torch.inference_mode():
            yield self._models[key]


def read_model(head: Literal["causal", "classifier"], folder: Path, precision: Precision) -> Any:
    """Raises UserError for a weight that is not in the folder: transformers would make it up."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    loaded: Any = (AutoModelForCausalLM if head == "causal" else AutoModelForSequenceClassification).from_pretrained(
        folder,
        dtype=torch.float32 if precision == "float32" else torch.bfloat16,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{folder}: opened as a {head} model, its weights lack {', '.join(missing[:3])}. "
            "Point at a model saved with that head"
        )
    return model


def _batched(
    model: Any,
    sequences: Sequence[Ids],
    batch_size: int,
    forward: "Callable[[Any, Tensor, Tensor], Tensor]",
) -> list[float]:
    """``forward(model, ids, mask)`` over sequences of like length together, padded on the right; answers in the order
    they came."""
    import torch

    # the mask says what is padding; some encoders count positions by the pad id as well
    pad_id = model.config.pad_token_id if model.config.pad_token_id is not None else 0
    answers = [0.0] * len(sequences)
    by_length = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(by_length), batch_size):
        batch = by_length[start : start + batch_size]
        ids = torch.full((len(batch), len(sequences[batch[-1]])), pad_id)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):
            ids[row, : len(sequences[i])] = torch.tensor(sequences[i])
            mask[row, : len(sequences[i])] = 1
        answered = forward(model, ids.to(model.device), mask.to(model.device)).float().tolist()
        for i, answer in zip(batch, answered, strict=True):
            answers[i] = answer
    return answers


def classify(model: Any, ids: "Tensor", mask: "Tensor") -> "Tensor":
    """(B,) outputs. A decoder's head is read where the mask ends: transformers looks for the last token that is not
    the pad token, which is the wrong place when a sequence ends with that token."""
    import torch

    if not hasattr(model, "score"):
        return model(input_ids=ids, attention_mask=mask).logits[:, 0]
    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    last = hidden[torch.arange(len(ids), device=hidden.device), mask.sum(dim=1) - 1]
    return model.score(last)[:, 0]


def next_logits(model: Any, ids: "Tensor", mask: "Tensor") -> "Tensor":
    """(B, V) logits after each sequence, computed at the columns where sequences end and nowhere else."""
    import torch

    ends, column = torch.unique(mask.sum(dim=1) - 1, return_inverse=True)
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=ends, use_cache=False).logits
    return logits[torch.arange(len(ids), device=logits.device), column]
