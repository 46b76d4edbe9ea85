"""What engines read from a model folder before they open it."""

import json
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.execution import Engine
from alignment.types import Artifact, digest_of
from infra.model_folder import read_config

Model = Artifact | Path
"""A model of the store, fetched by each machine that opens it, or a folder that every machine sees."""

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM's CPU attention is built for; any other size fails at the first token."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def folder_of(model: Model) -> Path:
    """The model's folder on this machine."""
    if isinstance(model, Path):
        return model
    from infra.artifacts import fetch_tree  # the store's client, which a plain folder does without

    return fetch_tree(model)


def shape_of(folder: Path) -> str:
    """Digest of what must be equal for weights to replace each other in place: architecture and tokenizer."""
    volatile = {"_name_or_path", "transformers_version"}
    config = {k: v for k, v in read_config(folder).items() if k not in volatile}
    return digest_of([config, *(_content(folder / name) for name in TOKENIZER_FILES)])


def check_head_size(folder: Path, engine: Engine) -> None:
    """Raises UserError where vLLM's CPU attention does not know the policy's head size."""
    config = read_config(folder)
    if engine.gpu or "num_attention_heads" not in config:
        return
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    check_head(size, str(folder), engine)


def check_head(size: int, where: str, engine: Engine) -> None:
    """``check_head_size`` for a policy that is yet to be made."""
    if not engine.gpu and size not in CPU_HEAD_SIZES:
        raise UserError(
            f"{where}: attention heads of size {size}; vLLM on a CPU has {', '.join(map(str, CPU_HEAD_SIZES))}. "
            "Choose hidden / heads to be one of them, or sample on a GPU"
        )


def _content(path: Path) -> Any:
    if not path.is_file():
        return None
    text = path.read_text()
    if path.name != "tokenizer_config.json":
        return text
    described = json.loads(text)
    return {k: v for k, v in described.items() if k not in ("name_or_path", "tokenizer_file")}
