"""Training on groups beside TRL's ``DPOTrainer``, in one process, on the same pairs: process CPU seconds, as a ratio.

The same random 3.4 M Llama, prompts and completions of equal length, precomputed reference on both sides, one thread,
float32, all pairs of each group. TRL runs each completion once per pair it is in; a group runs it once.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trl")

PROMPTS, REPEATS = 4, 3


def _model(context: int):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=1024, max_position_embeddings=context, **shape))


def _cpu_seconds(call: Callable[[], object]) -> list[float]:
    call()  # the first one is slower
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return seconds


def _ours(prompts: list[list[int]], completions: list[list[list[int]]]) -> list[float]:
    import torch

    from alignment.group_loss import pair_logprobs, summed_loss
    from alignment.logprobs import completion_logprobs
    from alignment.losses import DPO
    from alignment.packing import TrainingGroup

    model = _model(512)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
    groups = []
    for number, (prompt, answers) in enumerate(zip(prompts, completions, strict=True)):
        pairs = [(i, j) for i in range(len(answers)) for j in range(i)]
        with torch.no_grad():
            reference = completion_logprobs(model, prompt, answers).tolist()
        chosen, rejected = zip(*pairs, strict=True)
        ones = (1.0,) * len(pairs)
        groups.append(
            TrainingGroup(
                prompt_id=str(number), prompt_ids=tuple(prompt), completions=tuple(map(tuple, answers)),
                reference=tuple(reference), chosen=chosen, rejected=rejected, p=ones, weights=ones,
            )
        )  # fmt: skip
    total = sum(len(g.chosen) for g in groups)

    def step() -> None:
        for group in groups:
            policy = completion_logprobs(model, group.prompt_ids, group.completions)
            (summed_loss(DPO(), [group], pair_logprobs([group], policy)) / total).backward()
        optimiser.step()
        optimiser.zero_grad()

    return [total / s for s in _cpu_seconds(step)]


def _trl(prompts: list[list[int]], completions: list[list[list[int]]], tokenizer, out: Path) -> list[float]:
    """Pairs per CPU second of whole training steps of 8 pairs."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [
        {"prompt": tokenizer.decode(p), "chosen": tokenizer.decode(a[i]), "rejected": tokenizer.decode(a[j])}
        for p, a in zip(prompts, completions, strict=True)
        for i in range(len(a))
        for j in range(i)
    ][: 8 * (REPEATS + 1)]
    config = DPOConfig(
        output_dir=str(out), per_device_train_batch_size=8, max_steps=1, report_to=[], save_strategy="no",
        precompute_ref_log_probs=True, gradient_checkpointing=False, use_cpu=True, bf16=False, logging_strategy="no",
        max_length=None, disable_tqdm=True, learning_rate=1e-6,
    )  # fmt: skip
    trainer = DPOTrainer(
        model=_model(512), args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    return [8 / s for s in _cpu_seconds(trainer.train)]


@pytest.mark.parametrize(("prompt", "completion", "group"), [(256, 64, 8), (64, 64, 8), (32, 128, 8), (64, 64, 2)])
def test_pairs_per_cpu_second(prompt: int, completion: int, group: int, tmp_path: Path):
    import torch

    torch.set_num_threads(1)
    tokenizer = _letters()
    rng = np.random.default_rng(0)
    prompts = rng.integers(10, 1000, (PROMPTS, prompt)).tolist()
    completions = rng.integers(10, 1000, (PROMPTS, group, completion)).tolist()
    ours = _ours(prompts, completions)
    theirs = _trl(prompts, completions, tokenizer, tmp_path)
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(
        f"\nprompt {prompt}, completion {completion}, K {group}: groups {statistics.median(ours):.1f} "
        f"[{min(ours):.1f}, {max(ours):.1f}] pairs/s, TRL {statistics.median(theirs):.1f} "
        f"[{min(theirs):.1f}, {max(theirs):.1f}], ratio {ratio:.1f}"
    )


def _letters():
    """One token per word ``w17``: decoding and encoding give the same ids back."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "<eos>": 1} | {f"w{i}": i for i in range(2, 1024)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
