"""A recipe, checked here, as a job on a cluster."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment.config import RunConfig
from alignment.errors import UserError
from infra.submit import submit


def submit_run(config: RunConfig, recipe: Path, overrides: list[str], *, address: str) -> int:
    """Run ``recipe`` with ``overrides``, which together gave ``config``, on a Ray cluster; the run's exit status.

    UserError for a store or an input file that is relative to this folder: the job runs in one of its own, which is
    deleted when it ends.
    """
    if local := [f"{where} = {path!r}" for where, path in _paths(config.model_dump()) if _is_relative(path)]:
        raise UserError(
            f"{recipe}: {', '.join(local)}: relative to this folder, which the cluster does not see; give an "
            "s3:// address, or an absolute path that its machines share"
        )
    return submit(recipe.read_bytes(), overrides, address, config.run)


def _paths(values: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{at}{key}.")
        elif key in ("store", "path"):
            yield f"{at}{key}", value


def _is_relative(path: str) -> bool:
    return "://" not in path and not Path(path).is_absolute()
