"""Models whose numbers depend on what shares their batch, and the training stack in this process to ask them."""

from collections.abc import Sequence
from pathlib import Path

from infra.model_actor import ModelActor

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "short_factor": [1.0] * 16,
    "long_factor": [4.0] * 16,
}
"""Positions of every row of a batch are scaled by the longest one: by 1 up to 16 tokens, by 4 beyond (as in Phi-3)."""


def saved(folder: Path, model, tokenizer_folder: Path) -> Path:
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tokenizer_folder).save_pretrained(folder)
    return folder


def last_position_reader(folder: Path, tokenizer_folder: Path) -> Path:
    """An XLNet classifier: its head reads the last position, which is padding where a row is padded on the right."""
    import torch
    from transformers import XLNetConfig, XLNetForSequenceClassification

    config = XLNetConfig(
        vocab_size=400, d_model=32, n_layer=2, n_head=2, d_inner=64, num_labels=1, pad_token_id=0, n_ctx=128
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return saved(folder, XLNetForSequenceClassification(config), tokenizer_folder)


class InProcess:
    """The training stack's own process, in this one."""

    def __init__(self):
        self._actor = ModelActor(threads=1, gpu=False)

    def scores(self, model, sequences: Sequence[Sequence[int]], *, batch_size: int | None = None) -> list[float]:
        return self._actor.scores(model, sequences, batch_size=batch_size or 16)
