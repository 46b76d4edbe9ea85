"""Small models trained from scratch, in the calling process; here the policy, in ``scratch_reward`` the reward model.

Plain torch with Muon on the matrices: at this size the bottleneck is learning to copy words from the request, which
Muon learns several times faster than AdamW. Models that bring weights keep to AdamW. The caller sets threads and the
memory allocator.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from alignment.errors import UserError
from alignment.logprobs import Row, row_logprobs
from alignment.models import Architecture, Scratch, Trained
from alignment.probes import Probe
from alignment.types import Message
from alignment.worlds import Demonstration
from infra.checks import check_reload

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, loss)."""

WARMUP = 0.05
"""Share of the steps over which the learning rate rises; it falls linearly to zero over the rest."""
PROBED = 8
"""Rows that a model is read back with."""
ADAM_SHARE = 0.2
"""AdamW's learning rate for embeddings, heads and norms, as a share of Muon's."""


def train_policy(
    demonstrations: Sequence[Demonstration],
    tokenizer: "PreTrainedTokenizerFast",
    source: Scratch,
    out: Path,
    *,
    progress: Progress,
) -> Probe:
    """Train a Llama on the assistant turns of demonstrations and save it to ``out`` with its tokenizer, read back.

    Cross-entropy averaged over a batch's assistant tokens, EOS included. The same arguments and thread count give
    the same weights. Raises UserError when a demonstration exceeds the context, ProbeFailed as ``save`` does.
    """
    import torch
    from torch.nn import functional as F

    rows = [turns(tokenizer, d.messages) for d in demonstrations]
    check_fit([len(ids) for ids, _ in rows], source.architecture.context, "demonstration")
    torch.manual_seed(source.seed)
    model, pad = _llama(source.architecture, tokenizer), token_id(tokenizer, "pad")

    def loss_of(batch: Sequence[int]) -> "Tensor":
        ids_B_T = padded([rows[i][0] for i in batch], pad)
        learn_B_T = padded([rows[i][1] for i in batch], 0)[:, 1:].bool()
        hidden = model.model(ids_B_T[:, :-1]).last_hidden_state[learn_B_T]
        return F.cross_entropy(model.lm_head(hidden).float(), ids_B_T[:, 1:][learn_B_T])

    fit(model, source, [len(ids) for ids, _ in rows], loss_of, progress)
    probed = [Row(ids[:1], ids[1:]) for ids, _ in rows[:PROBED]]
    return save(model, tokenizer, out, lambda model: row_logprobs(model, probed), probed)


def batches(lengths: Sequence[int], budget: int, rng: np.random.Generator) -> list[list[int]]:
    """One epoch: every row once, in batches of like length that hold at most ``budget`` tokens, padding included.

    Rows are shuffled, sorted within windows of about 32 batches, cut, and the batches shuffled. A row longer than
    the budget is a batch of its own.
    """
    order = rng.permutation(len(lengths))
    window = max(1, 32 * budget // max(1, round(float(np.mean(lengths)))))
    cut: list[list[int]] = []
    for start in range(0, len(order), window):
        batch: list[int] = []
        for row in sorted(order[start : start + window].tolist(), key=lambda row: lengths[row]):
            if batch and lengths[row] * (len(batch) + 1) > budget:
                cut.append(batch)
                batch = []
            batch.append(row)
        cut.append(batch)
    return [cut[i] for i in rng.permutation(len(cut))]


def _plan(lengths: Sequence[int], source: Scratch | Trained) -> list[list[int]]:
    """The batches of all epochs, a part of an epoch as the part of its batches."""
    rng = np.random.default_rng(source.seed)
    planned: list[list[int]] = []
    left = source.epochs
    while left > 0:
        epoch = batches(lengths, source.batch_tokens, rng)
        planned += epoch[: max(1, round(min(1.0, left) * len(epoch)))]
        left -= 1
    return planned


def fit(
    model: "torch.nn.Module",
    source: Scratch | Trained,
    lengths: Sequence[int],
    loss_of: Callable[[Sequence[int]], "Tensor"],
    progress: Progress,
) -> None:
    """Minimise, with gradients clipped to norm 1: from scratch with Muon on the network's matrices and AdamW on the
    rest, else with AdamW. Products are in bf16 on a GPU and where the CPU has units for it, which is faster, and in
    float32 where it would have to emulate it, in thrice the time."""
    import torch

    from infra.muon import has_bf16_units

    device = next(model.parameters()).device.type
    native = device == "cuda" or has_bf16_units()
    optimizers = _optimizers(model, source, torch.bfloat16 if native else torch.float32)
    planned = _plan(lengths, source)
    for step, (batch, rate) in enumerate(zip(planned, _rates(len(planned)), strict=True), start=1):
        for optimizer, peak in optimizers:
            optimizer.zero_grad(set_to_none=True)
            optimizer.param_groups[0]["lr"] = peak * rate
        with torch.autocast(device, dtype=torch.bfloat16, enabled=native):
            loss = loss_of(batch)
        if not torch.isfinite(loss):
            raise UserError(
                f"training from scratch: loss {loss.item()} at step {step} of {len(planned)} with learning_rate = "
                f"{source.learning_rate}; lower it"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
        progress(step, len(planned), loss.item())


def _optimizers(
    model: "torch.nn.Module", source: Scratch | Trained, dtype: "torch.dtype"
) -> list[tuple["torch.optim.Optimizer", float]]:
    """(optimizer, peak learning rate): from scratch Muon for weights of the layers, AdamW for embeddings, heads and
    norms; else AdamW for all."""
    import torch

    from infra.muon import Muon

    rate = source.learning_rate
    if isinstance(source, Trained):
        decay = source.weight_decay
        return [(torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=decay), rate)]
    matrices = [p for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        (Muon(matrices, lr=rate, weight_decay=0.01, dtype=dtype), rate),
        (torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True), ADAM_SHARE * rate),
    ]


def _rates(steps: int) -> Iterator[float]:
    warm = max(1, round(WARMUP * steps))
    for step in range(1, steps + 1):
        yield min(step / warm, (steps - step + 1) / (steps - warm + 1))


def _llama(shape: Architecture, tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=shape.context,
        tie_word_embeddings=False,
        bos_token_id=token_id(tokenizer, "bos"),
        eos_token_id=token_id(tokenizer, "eos"),
        pad_token_id=token_id(tokenizer, "pad"),
    )
    return LlamaForCausalLM(config)


def token_id(tokenizer: "PreTrainedTokenizerFast", name: Literal["bos", "eos", "pad"]) -> int:
    return cast(int, getattr(tokenizer, f"{name}_token_id"))


def turns(tokenizer: "PreTrainedTokenizerFast", messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """Token ids of a conversation, and 1 where a token belongs to an assistant turn."""
    conversation = [m.model_dump() for m in messages]
    rendered = tokenizer.apply_chat_template(conversation, return_dict=True, return_assistant_tokens_mask=True)
    ids_and_mask = cast(dict[str, list[int]], rendered)
    return ids_and_mask["input_ids"], ids_and_mask["assistant_masks"]


def padded(rows: Sequence[Sequence[int]], pad: int) -> "Tensor":
    """(B, T) padded on the right, where a causal model's other positions never see it."""
    import torch

    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])


def check_fit(lengths: Sequence[int], context: int, what: str) -> None:
    if not lengths:
        raise UserError(f"training from scratch: there is no {what}; raise examples")
    if (longest := max(lengths)) > context:
        raise UserError(
            f"{what} {int(np.argmax(lengths))} has {longest} tokens, the context holds {context}: raise "
            "architecture.context"
        )


def save(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    out: Path,
    numbers: "Callable[[Any], Tensor]",
    rows: Sequence[Row],
) -> Probe:
    """Write both, and read the model back. Probe (e): ``numbers`` of a model, one per row, are those of the other.

    Raises ProbeFailed with both.
    """
    import torch

    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    with torch.no_grad():
        again = type(model).from_pretrained(out, dtype=torch.float32, use_safetensors=True)
        ours, theirs = (numbers(one).tolist() for one in (model, again))
    return check_reload(f"the {type(model).__name__} trained here", rows, ours, theirs, "float32")
