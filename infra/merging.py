"""A policy's weights moved along the way that its training went."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.errors import UserError
from infra.model_folder import model_files, safetensors_header
from infra.vocabulary import same_tokenizer

if TYPE_CHECKING:
    from torch import Tensor


def merge_folders(trained: Path, start: Path, step: float, out: Path) -> None:
    """Write ``trained + step (trained - start)`` to ``out``, tensor by tensor, and the other files of ``trained``.

    Computed in float32 and stored in the dtype of ``trained``; where both are equal, its very bits. Raises UserError,
    before anything is written, for models whose tensors or tokenizers differ, and for a result that is not finite.
    """
    from safetensors.torch import save_file

    where = _tensors(start)
    _check(trained, start, where)
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(path for path in trained.iterdir() if path.is_file()):
        if file.suffix == ".safetensors":
            merged = _merged(file, where, step)
            save_file(merged, out / file.name, metadata={"format": "pt"})
        else:
            shutil.copyfile(file, out / file.name)


def _tensors(folder: Path) -> dict[str, Path]:
    """Which file holds each tensor of a model."""
    files = [path for path in model_files(folder).values() if path.suffix == ".safetensors"]
    return {name: file for file in files for name in safetensors_header(file)}


def _check(trained: Path, start: Path, where: dict[str, Path]) -> None:
    same_tokenizer(trained, start)
    held = _tensors(trained)
    if odd := sorted(held.keys() ^ where.keys()):
        raise UserError(
            f"{trained} and {start} are different models: only one of them has {odd[0]} ({len(odd)} in all)"
        )
    for name, file in held.items():
        shapes = [safetensors_header(f)[name]["shape"] for f in (file, where[name])]
        if shapes[0] != shapes[1]:
            raise UserError(f"{name} is {shapes[0]} in {trained} and {shapes[1]} in {start}: give models of one shape")


def _merged(file: Path, where: dict[str, Path], step: float) -> "dict[str, Tensor]":
    from safetensors import safe_open
    from safetensors.torch import load_file

    merged = load_file(file)
    for name, value in merged.items():
        with safe_open(where[name], framework="pt") as tensors:
            moved = _moved(value, tensors.get_tensor(name), step)
        if not moved.isfinite().all():
            raise UserError(f"{name} of {file} leaves the range of {moved.dtype} at step {step:g}: take a smaller one")
        merged[name] = moved
    return merged


def _moved(trained: "Tensor", start: "Tensor", step: float) -> "Tensor":
    """Counters and masks, which no training moves, stay as they are."""
    if not trained.is_floating_point():
        return trained
    return (trained.float() + step * (trained.float() - start.float())).to(trained.dtype)
