"""One whole run that several files of tests look at."""

from pathlib import Path

import pytest
from filelock import FileLock
from whole_runs import run_tiny


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of a finished run of tiny.toml, with its own embedded Prefect server. Tests that run side by side
    share it: the first one makes it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "undisturbed"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            folder.mkdir()
            run_tiny(folder, str(folder / "runs"))
            (folder / "done").touch()
    return folder
