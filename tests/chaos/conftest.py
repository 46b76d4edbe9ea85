"""What a run on fake engines begins with, and one that nothing disturbs."""

from pathlib import Path

import pytest
from chaos_runs import Whole, undisturbed
from fake_run import lay_out


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy and prompts."""
    folder = tmp_path_factory.mktemp("given")
    lay_out(folder)
    return folder


@pytest.fixture(scope="module")
def whole(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return undisturbed(given, tmp_path_factory.mktemp("whole"))
