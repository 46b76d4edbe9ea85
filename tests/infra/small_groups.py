"""Three training groups of six pairs in all, whose references are both the policy itself."""

from pathlib import Path

import torch

from alignment.logprobs import Row, completion_logprobs, token_logprobs
from alignment.packing import TrainingGroup

SHAPES = {
    "three": ((7, 8, 9), ((11, 12, 13, 2), (14, 15, 2), (16, 2)), [(0, 1), (0, 2), (1, 2)]),
    "two": ((300, 21), ((22, 23, 24, 25, 26, 2), (27, 28)), [(1, 0)]),
    "four": ((31, 32, 33, 34), ((35, 36), (37, 2), (38, 39, 40, 2), (41, 42, 2)), [(3, 0), (2, 1)]),
}
"""Prompt, completions and pairs by prompt id. Token 300 is in one prompt alone."""


def small_groups(policy: Path) -> list[TrainingGroup]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy)
    with torch.no_grad():
        references = {name: completion_logprobs(model, shape[0], shape[1]).tolist() for name, shape in SHAPES.items()}
        by_token = {name: token_logprobs(model, [Row(shape[0], c) for c in shape[1]]) for name, shape in SHAPES.items()}
    return [
        TrainingGroup(
            prompt_id=name,
            prompt_ids=prompt,
            completions=completions,
            reference=tuple(references[name]),
            reference_tokens=tuple(
                tuple(row[: len(c)]) for row, c in zip(by_token[name].tolist(), completions, strict=True)
            ),
            second_reference=tuple(references[name]),
            chosen=tuple(i for i, _ in pairs),
            rejected=tuple(j for _, j in pairs),
            p=(1.0,) * len(pairs),
            weights=(1.0,) * len(pairs),
        )
        for name, (prompt, completions, pairs) in SHAPES.items()
    ]
