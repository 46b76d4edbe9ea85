"""Training groups of unequal size, and a model small enough to differentiate in a test."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignment.packing import TrainingGroup


def training_group(name: str, completions, pairs, weights=None, p=1.0) -> TrainingGroup:
    """A group whose prompt is ``name``; completion k has the reference log-probability -10 - k, more of it on later
    tokens, -11 - k/2 under a second reference, and a reward of -k."""
    return TrainingGroup(
        prompt_id=name,
        prompt_ids=tuple(ord(letter) % 13 + 1 for letter in name),
        completions=completions,
        reference=tuple(-10.0 - k for k in range(len(completions))),
        reference_tokens=tuple(
            tuple((-10.0 - k) * 2 * (t + 1) / (len(c) * (len(c) + 1)) for t in range(len(c)))
            for k, c in enumerate(completions)
        ),
        second_reference=tuple(-11.0 - k / 2 for k in range(len(completions))),
        chosen=tuple(i for i, _ in pairs),
        rejected=tuple(j for _, j in pairs),
        p=(p,) * len(pairs),
        weights=weights or (1.0,) * len(pairs),
        reward_margins=tuple(float(j - i) for i, j in pairs),
    )


GROUPS = [
    training_group("three", ((1, 2, 3), (4, 5), (6,)), [(0, 1), (0, 2), (1, 2)]),
    training_group("two", ((7, 8, 9, 1), (2,)), [(1, 0)]),
    training_group("four", ((3, 3), (5, 1, 4), (2, 2, 2), (8,)), [(3, 0), (2, 1)]),
]


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        tie_word_embeddings=False, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config)
