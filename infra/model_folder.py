"""What a model folder must hold before an engine is asked to open it. Reads JSON and safetensors headers only."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.goal_template import goal_template
from alignment.types import Goal
from infra.names import shown
from infra.trees import PICKLED, check_no_pickle

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\.safetensors")
CODE_CONFIGS = ("tokenizer_config.json", "generation_config.json")
LONGEST_HEADER = 100_000_000
"""Bytes; safetensors itself reads no longer one."""
_LFS = b"version https://git-lfs"
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")


def model_files(folder: Path, *, trust_remote_code: bool = False) -> dict[str, Path]:
    """The files that make the model, by name: config, weights and tokenizer, and its code where that is trusted.

    Other files of the folder (pickled twins, optimiser states, notes) are left behind. Raises UserError where weights
    are missing, pickled, cut short or a Git LFS pointer, where there is no config or tokenizer, where the folder asks
    for its own code to be run, and for a name or a link that leads out of it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a transformers model directory")
    config = read_config(folder)
    names = ["config.json", *_weights(folder)]
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder} has no tokenizer.json. Save a fast tokenizer there: "
            "AutoTokenizer.from_pretrained(model).save_pretrained(folder)"
        )
    names += [name for name in (*TOKENIZER_FILES, "generation_config.json") if (folder / name).is_file()]
    if _wants_code(folder, config):
        if not trust_remote_code:
            raise UserError(
                f"{folder}: its configuration (auto_map) runs Python code of its own. "
                "Read that code, then set trust_remote_code = true for this model"
            )
        names += sorted(path.name for path in folder.glob("*.py"))
    files = {name: folder / name for name in names}
    for path in files.values():
        _check_inside(folder, path)
        _check_no_pointer(path)
        check_no_pickle(path)
    return files


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json``. UserError where it is missing or no JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        adapter = (folder / "adapter_config.json").is_file()
        way_out = (
            "it is an adapter: merge it into its base model and save that" if adapter else "give a model directory"
        )
        raise UserError(f"{folder} has no config.json: {way_out}")
    return read_json(path)


def context_length(folder: Path) -> int:
    """Tokens of prompt and completion that the model was made for."""
    config = read_config(folder)
    for part in (config, config.get("text_config") or {}):
        for field in _CONTEXT_FIELDS:
            if isinstance(part.get(field), int):
                return part[field]
    raise UserError(f"{folder}/config.json tells no context length: add max_position_embeddings to it")


def end_tokens(folder: Path) -> frozenset[int]:
    """Tokens that the model's configurations name as ends of a completion; engines stop at any of them."""
    named: list[Any] = []
    for path in (folder / "config.json", folder / "generation_config.json"):
        found = read_json(path).get("eos_token_id") if path.is_file() else None
        named += found if isinstance(found, list) else [found]
    return frozenset(token for token in named if isinstance(token, int))


def write_goal_template(folder: Path, goal: Goal) -> None:
    """Make the folder's chat template say the goal, as the policy was trained to read it."""
    beside, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if beside.is_file():
        beside.write_text(goal_template(beside.read_text(encoding="utf-8"), goal), encoding="utf-8")
        return
    settings = read_json(config)
    settings["chat_template"] = goal_template(settings["chat_template"], goal)
    config.write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")


def vocabulary_size(folder: Path) -> int | None:
    """Rows of the embedding; None where the configuration does not tell."""
    config = read_config(folder)
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    return size if isinstance(size, int) else None


def parameters(files: Iterable[Path]) -> int:
    """Numbers in the weights of these files, from their headers."""
    shapes = [t["shape"] for path in files if path.suffix == ".safetensors" for t in safetensors_header(path).values()]
    return sum(_product(shape) for shape in shapes)


def safetensors_header(path: Path) -> dict[str, Any]:
    """Tensors by name with dtype and shape. UserError where the file is cut short, no safetensors, a pickle under that
    name, or where its header lies about what follows."""
    _check_no_pointer(path)
    check_no_pickle(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size - 8, LONGEST_HEADER):
            raise UserError(f"{path} ({size} bytes) is no safetensors file, or is cut short: get it again")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
            raise UserError(f"{path} has no readable safetensors header ({e}): get it again") from e
    if size != end:
        raise UserError(f"{path} has {size} bytes, its header says {end}: get it again")
    if not header:
        raise UserError(f"{path} holds no weights: save the model again")
    _check_header(path)
    if empty := [name for name, tensor in header.items() if 0 in tensor["shape"]]:
        raise UserError(
            f"{path}: {len(empty)} of {len(header)} tensors are empty, the first is {empty[0]}: saved without being "
            "gathered (ZeRO-3). Save the model again with its whole weights"
        )
    return header


def _check_header(path: Path) -> None:
    """safetensors' own reading of it: types, and bytes that are each of one tensor."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as e:
        raise UserError(f"{path}: its header does not fit its bytes ({' '.join(str(e).split())}): get it again") from e


def _weights(folder: Path) -> list[str]:
    if (folder / INDEX).is_file():
        return [INDEX, *_shards(folder)]
    if (folder / "model.safetensors").is_file():
        safetensors_header(folder / "model.safetensors")
        return ["model.safetensors"]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if pickles:
        raise UserError(
            f"{folder} has its weights only as pickles ({pickles[0]}), which can run code when they are opened. "
            "Load it where you trust it and save it again with save_pretrained, which writes safetensors"
        )
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    lacking = f"{INDEX}, though it has {shards[0]}" if shards else "weights: no model.safetensors"
    raise UserError(f"{folder} has no {lacking}. Give a folder written by save_pretrained")


def _shards(folder: Path) -> list[str]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{folder / INDEX} has no weight_map: save the model again")
    if odd := [name for name in weight_map.values() if not isinstance(name, str) or not SHARD.fullmatch(name)]:
        raise UserError(f"{folder / INDEX} names {shown(str(odd[0]))}, no safetensors file beside it: get it again")
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(shards)} weight files are missing, the first is {missing[0]}: "
            "get the model again"
        )
    for shard in shards:
        held = safetensors_header(folder / shard)
        absent = [name for name, file in weight_map.items() if file == shard and name not in held]
        if absent:
            raise UserError(f"{folder / shard} lacks {absent[0]}, which {INDEX} says it holds: get the model again")
    return shards


def _wants_code(folder: Path, config: dict[str, Any]) -> bool:
    beside = [path for name in CODE_CONFIGS if (path := folder / name).is_file()]
    return any(_asks(value) for value in (config, *map(read_json, beside)))


def _asks(value: Any) -> bool:
    """Whether a configuration, or a part of it such as ``text_config``, names classes of its own."""
    if isinstance(value, dict):
        named = bool(value.get("auto_map")) or value.get("trust_remote_code") is True
        return named or any(map(_asks, value.values()))
    return isinstance(value, list) and any(map(_asks, value))


def _check_inside(folder: Path, path: Path) -> None:
    """A link may lead to another file of the folder, or from a snapshot of the hub's cache to its blobs."""
    allowed = [folder.resolve()]
    if folder.parent.name == "snapshots":
        allowed.append((folder.parent.parent / "blobs").resolve())
    if not any(path.resolve().is_relative_to(root) for root in allowed):
        raise UserError(f"{path} is a link out of {folder}: put the file itself there")


def _check_no_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise UserError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull` in {path.parent}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. UserError where the file holds something else."""
    _check_no_pointer(path)
    try:
        value = json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(f"{path} is malformed JSON ({e}): get it again") from e
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object: get it again")
    return value


def _product(shape: Iterable[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
