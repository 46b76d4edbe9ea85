"""One whole run that several files of tests look at."""

from pathlib import Path

import pytest
from filelock import FileLock
from whole_runs import RECIPE, ratchet


@pytest.fixture(scope="session")
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of a finished run of tiny.toml, submitted to a Ray cluster, where its engines and its embedded Prefect
    server ran. Tests that run side by side share it: the first one makes it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "undisturbed"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            folder.mkdir()
            head = request.getfixturevalue("ray_head")
            words = ("--address", head.jobs, "--store", str(folder / "runs"))
            driver = ratchet(folder, "submit", str(RECIPE), *words, env=head.env)
            said, _ = driver.communicate(timeout=1500)
            assert driver.returncode == 0, said
            assert "made in" in said
            (folder / "done").touch()
    return folder
