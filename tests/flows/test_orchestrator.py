"""A run whose Prefect server is not there, or goes away."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from programs import free_port
from server_fixtures import prefect_api
from whole_runs import RECIPE, ratchet

from alignment.errors import UserError
from flows.orchestrator import answering


def test_a_server_that_is_not_there_is_told_before_anything_starts(tmp_path: Path):
    server = f"http://127.0.0.1:{free_port()}"
    run = ratchet(
        tmp_path, "run", str(RECIPE), "--store", str(tmp_path / "runs"), env={"PREFECT_API_URL": f"{server}/api"}
    )
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 2, said
    assert said.startswith(f"ratchet: {server}: no Prefect server answers there (")
    assert said.endswith("Start it, or unset PREFECT_API_URL to run without one\n")
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_server_that_goes_away_under_a_run_is_told_with_the_way_out(tmp_path: Path):
    @flow
    def inner() -> None:
        pass

    with ExitStack() as server:
        api = server.enter_context(prefect_api(tmp_path))

        @flow
        def run() -> None:
            inner()
            server.close()
            inner()

        with (
            temporary_settings({PREFECT_API_URL: api, PREFECT_CLIENT_MAX_RETRIES: 1}),
            pytest.raises(
                UserError, match=r"127.0.0.1:\d+: the Prefect server has stopped answering \(.*the same command"
            ),
            answering(),
        ):
            run()


def test_a_run_that_fails_of_itself_is_told_as_it_is():
    with pytest.raises(ZeroDivisionError), answering():
        raise ZeroDivisionError
