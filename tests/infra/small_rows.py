"""Small rows, their objects, and other processes: what the tests of the store share."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from alignment.types import Artifact, Dropped
from infra import artifacts

ROOT = Path(__file__).parents[2]


def dropped(*items: str) -> list[Dropped]:
    return [Dropped(step="select", item=item, reason="tie") for item in items]


def commit(store: str, *items: str, recipe: str = "r1", **more) -> Artifact:
    return artifacts.commit_rows(store, "pairs", recipe, dropped(*items), Dropped, **more)


def data_files(store: str, artifact: Artifact) -> list[str]:
    return [f"objects/{artifact.kind}/{artifact.recipe}/{file.path}" for file in artifacts.record_of(artifact).files]


def run_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
