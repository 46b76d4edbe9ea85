"""Log-probabilities of completions under a causal language model: the one function that training, the ``logprobs``
step and the weight probe share, so that their numbers may meet inside one margin."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor, device

Ids = Sequence[int]


class CausalModel(Protocol):
    """A transformers causal model, or a training engine around one."""

    @property
    def device(self) -> "device": ...

    def __call__(
        self, *, input_ids: "Tensor", attention_mask: "Tensor", position_ids: "Tensor", logits_to_keep: "Tensor",
        use_cache: bool,
    ) -> "CausalOutput": ...  # fmt: skip


class CausalOutput(Protocol):
    @property
    def logits(self) -> "Tensor": ...


class Row(NamedTuple):
    """One sequence: a prompt and one completion of it, as token ids."""

    prompt: Ids
    completion: Ids
    """As sampled, EOS included where there is one."""


def completion_logprobs(
    model: CausalModel, prompt_ids: Ids, completions: Sequence[Ids], *, batch_size: int | None = None
) -> "Tensor":
    """Log-probability of each completion of one prompt, (K,) float32, summed over its tokens, natural log.

    ``batch_size`` bounds the rows of a forward pass; it moves results by rounding only. Gradients flow when the
    caller has them on. Raises ValueError for an empty prompt or completion, which has no log-probability here.
    """
    return row_logprobs(model, [Row(prompt_ids, completion) for completion in completions], batch_size=batch_size)


def row_logprobs(model: CausalModel, rows: Sequence[Row], *, batch_size: int | None = None) -> "Tensor":
    """As :func:`completion_logprobs`, for rows of several prompts: (R,) float32."""
    return token_logprobs(model, rows, batch_size=batch_size).sum(dim=1)


def token_logprobs(model: CausalModel, rows: Sequence[Row], *, batch_size: int | None = None) -> "Tensor":
    """Log-probability of each completion token, (R, T) float32 with T the longest completion; 0 beyond an end."""
    import torch
    from torch.nn.functional import pad

    if not rows:
        raise ValueError("no rows to compute log-probabilities of")
    for number, row in enumerate(rows):
        if not row.prompt or not row.completion:
            raise ValueError(f"row {number}: {len(row.prompt)} prompt and {len(row.completion)} completion tokens")
    size = batch_size or len(rows)
    chunks = [_chunk(model, rows[start : start + size]) for start in range(0, len(rows), size)]
    longest = max(chunk.shape[1] for chunk in chunks)
    return torch.cat([pad(chunk, (0, longest - chunk.shape[1])) for chunk in chunks])


def row_confidences(model: CausalModel, rows: Sequence[Row]) -> "tuple[Tensor, Tensor]":
    """As :func:`row_logprobs` in one pass, (R,), and each completion's mean over tokens of log p_t - log sum_v p_v^2,
    (R,), without gradient: how much likelier its tokens are than the policy's own draws, on average (WPO's weights,
    arXiv:2406.11827, eq. 2)."""
    import torch

    logits, targets = _forward(model, rows)
    logprobs = _target_logprobs(logits, targets)
    with torch.no_grad():
        log_sum_squares = (2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1)
        lengths = (targets != -100).sum(dim=1)
        confidence = (logprobs - log_sum_squares.masked_fill(targets == -100, 0)).sum(dim=1) / lengths
    return logprobs.sum(dim=1), confidence


def _chunk(model: CausalModel, rows: Sequence[Row]) -> "Tensor":
    """One forward pass: (B, T) log-probabilities."""
    return _target_logprobs(*_forward(model, rows))


def _forward(model: CausalModel, rows: Sequence[Row]) -> "tuple[Tensor, Tensor]":
    """One forward pass: logits at completion positions, (B, T, V) float32, and target tokens, (B, T), -100 beyond an
    end. Completions begin in one common column, so one index keeps the logits of them all: prompts of different
    lengths are padded on their left, completions on their right."""
    import torch

    longest_prompt = max(len(row.prompt) for row in rows)
    width = longest_prompt + max(len(row.completion) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    targets = torch.full((len(rows), width - longest_prompt), -100)
    for number, (prompt, completion) in enumerate(rows):
        start, length = longest_prompt - len(prompt), len(prompt) + len(completion)
        ids[number, start : start + length] = torch.tensor([*prompt, *completion])
        mask[number, start : start + length] = 1
        targets[number, : len(completion)] = torch.tensor(completion)
    logits = model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0).to(model.device),
        logits_to_keep=torch.arange(longest_prompt - 1, width - 1, device=model.device),
        use_cache=False,
    ).logits
    # float32 before the softmax: summed in bf16, 64 tokens round -586 to a grid of 4
    return logits.float(), targets.to(logits.device)


def _target_logprobs(logits: "Tensor", targets: "Tensor") -> "Tensor":
    from torch.nn.functional import cross_entropy

    return -cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
