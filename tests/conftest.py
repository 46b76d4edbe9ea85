"""What many tests need: real data where it is at hand, and models small enough to build in a second."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["server_fixtures"]

# before torch: files are tested side by side, and OpenMP's threads would spin at barriers for those that do not run
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]

SPECIAL_TOKENS = ["<pad>", "<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CORPUS = [
    "Write a short note to Anna about the garden party. Keep it brief and mention the weather.",
    "Dear Anna, the garden party is on Saturday. The weather looks fine, and we hope that you can come.",
    "Which of these two answers is better? The first one is shorter; the second one is more helpful.",
    "Thank you for the letter. I will write to you again when the work is done. Best wishes, Thomas.",
]
CONTEXT = 128


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with engines first: they wait much, and what computes fills the gaps and the end."""
    engines = {item.path for item in items if item.get_closest_marker("engine")}
    items.sort(key=lambda item: item.path not in engines)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data files, which live beside the project and not in it."""
    shared = Path(os.environ.get("RATCHET_SHARED") or ROOT.parent / "shared")
    if not (shared / "data").is_dir():
        pytest.skip(f"no real data: {shared / 'data'} is absent (set RATCHET_SHARED to the folder that holds data/)")
    return shared / "data"


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer of 384 tokens with a chat template; any text round-trips."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=SPECIAL_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(CORPUS * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens=SPECIAL_TOKENS[3:],
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


def _llama_config(tokenizer_folder: Path, **changes: object):
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **changes,
    ), tokenizer


@pytest.fixture(scope="session")
def tiny_policy(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 45,000 weights, context 128, untied, float32, with its tokenizer."""
    import torch
    from transformers import LlamaForCausalLM

    config, tokenizer = _llama_config(tiny_tokenizer)
    folder = tmp_path_factory.mktemp("policy")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_reward_model(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama classifier with one output, context 128, with the policy's tokenizer."""
    import torch
    from transformers import LlamaForSequenceClassification

    config, tokenizer = _llama_config(tiny_tokenizer, num_labels=1)
    folder = tmp_path_factory.mktemp("reward_model")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
