"""The promoted policy, taken out of the store."""

import shutil
from pathlib import Path

from pydantic import TypeAdapter

from alignment.errors import UserError
from alignment.relabeling import Relabel
from alignment.types import Artifact
from infra import artifacts
from infra.model_folder import write_goal_template
from tasks.history import read_manifests


def standing_policy(store: str, run: str) -> Artifact:
    """The policy promoted last, or the one the run began with. UserError before the run has either."""
    promotion = artifacts.promoted(store, run)
    if promotion is not None:
        return promotion.artifact
    manifests = read_manifests(store, run)
    if not manifests:
        raise UserError(f"run {run!r} in store {store} has no policy yet: let it finish its first evaluation")
    return manifests[0].policy


def export_policy(store: str, run: str, folder: Path) -> Path:
    """Copy the standing policy into ``folder``, which must be empty or absent: plain transformers reads it there.

    A policy trained on goals is exported with its serving goal in the chat template, so that whoever serves it asks
    for it.
    """
    if not str(folder).isprintable():
        raise UserError(f"{str(folder)!a} holds control characters; name another folder")
    policy = standing_policy(store, run)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} exists and is not an empty folder; name another one")
        shutil.copytree(artifacts.fetch_tree(policy), folder, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); name another folder") from error
    relabel = artifacts.read_config(store, run).get("relabel")
    if relabel is not None and artifacts.promoted(store, run) is not None:
        write_goal_template(folder, TypeAdapter(Relabel).validate_python(relabel).serving)
    return folder
