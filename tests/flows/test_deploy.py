"""A deployment on a real Prefect server: typed form, refusals, schedule, runs."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from programs import find_program, free_port, running
from server_fixtures import prefect_api
from standin_flow import standin

from alignment.config import RunConfig
from alignment.errors import UserError
from flows.deploy import deploy_flow

CONFIG = RunConfig.model_validate(
    {
        "run": "nightly",
        "rounds": 2,
        "store": "s3://bucket/prefix",
        "policy": "some/policy",
        "prompts": {"type": "file", "path": "/data/prompts.jsonl"},
        "reward": {"type": "scalar_head", "model": "some/reward"},
        "sampler": {"type": "independent", "n": 4},
    }
)

SERVE = """
from alignment.config import RunConfig
from flows.deploy import deploy_flow
from standin_flow import standin
import sys
config = RunConfig.model_validate_json(sys.argv[1])
deploy_flow(standin, config, cron="* * * * *", serve=True, name="served", work_pool=None)
"""


@pytest.fixture
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: prefect_server}), get_client(sync_client=True) as client:
        yield client


def make(config: RunConfig = CONFIG, **changes: Any) -> None:
    deploy_flow(standin, config, **{"cron": None, "serve": False, "name": None, "work_pool": None, **changes})


def with_rounds(rounds: int) -> dict[str, Any]:
    return {"config": {**CONFIG.model_dump(mode="json"), "rounds": rounds}}


def runs_of(client: SyncPrefectClient, deployment: DeploymentResponse) -> list[FlowRun]:
    return [run for run in client.read_flow_runs() if run.deployment_id == deployment.id]


def until(found: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"nothing within {seconds} s"
        time.sleep(0.5)
    return value


@pytest.mark.engine
def test_the_form_is_the_typed_config_filled_in_from_the_recipe(client):
    make()
    deployment = client.read_deployment_by_name("standin/nightly")
    schema = deployment.parameter_openapi_schema
    fields = schema["definitions"]["RunConfig"]["properties"]
    assert schema["required"] == ["config"]
    assert fields["rounds"]["exclusiveMinimum"] == 0
    assert set(fields) == set(RunConfig.model_fields)
    assert RunConfig.model_validate(deployment.parameters["config"]) == CONFIG


@pytest.mark.engine
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rounds": 0}, "0 is less than or equal to the minimum of 0"),
        ({"rounds": "many"}, "'many' is not of type 'integer'"),
        ({"ruonds": 5}, "'ruonds' was unexpected"),
    ],
)
def test_a_form_that_cannot_be_run_is_refused_before_anything_starts(client, change, says):
    make(name="refused")
    deployment = client.read_deployment_by_name("standin/refused")
    with pytest.raises(PrefectHTTPStatusError) as refusal:
        client.create_flow_run_from_deployment(
            deployment.id, parameters={"config": {**CONFIG.model_dump(mode="json"), **change}}
        )
    assert refusal.value.response.status_code == 409
    assert says in refusal.value.response.text
    assert not runs_of(client, deployment)


@pytest.mark.engine
def test_the_server_plans_runs_when_the_schedule_says(client):
    """'0 3 * * *' in UTC: every planned run is at 03:00:00 of some day to come."""
    make(name="planned", cron="0 3 * * *")
    deployment = client.read_deployment_by_name("standin/planned")
    planned = until(lambda: runs_of(client, deployment), seconds=180)
    times = {run.expected_start_time.astimezone(UTC) for run in planned}
    assert {(t.hour, t.minute, t.second) for t in times} == {(3, 0, 0)}
    assert min(times) > datetime.now(UTC)


@pytest.mark.engine
def test_deploying_again_updates_the_deployment(client):
    make(name="again", cron="0 3 * * *")
    first = client.read_deployment_by_name("standin/again")
    make(CONFIG.model_copy(update={"rounds": 7}), name="again", cron="0 4 * * *")
    second = client.read_deployment_by_name("standin/again")
    assert second.id == first.id
    assert second.parameters["config"]["rounds"] == 7
    assert [s.schedule.cron for s in second.schedules] == ["0 4 * * *"]


@pytest.mark.engine
@pytest.mark.slow
def test_a_served_deployment_runs_what_is_triggered_and_what_is_scheduled(client, prefect_server, tmp_path):
    """A run from the form with 5 rounds, and one from the schedule, at the next full minute, with the recipe's 2
    and a name of its own."""
    log = tmp_path / "reached.txt"
    root = Path(__file__).resolve().parents[2]
    env = {
        "PREFECT_API_URL": prefect_server,
        "PREFECT_HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join([str(root), str(Path(__file__).parent)]),
        "STANDIN_LOG": str(log),
    }
    with running([sys.executable, "-c", SERVE, CONFIG.model_dump_json()], tmp_path / "serve.log", env):
        deployment = until(lambda: _deployment(client, "standin/served"), seconds=600)
        run = client.create_flow_run_from_deployment(deployment.id, parameters=with_rounds(5))
        until(lambda: _completed(client.read_flow_run(run.id)), seconds=400)
        until(
            lambda: [
                r
                for r in client.read_flow_runs()
                if r.deployment_id == deployment.id and r.auto_scheduled and _completed(r)
            ],
            seconds=400,
        )
    reached = log.read_text().splitlines()
    assert reached.count("nightly 5 RunConfig") == 1
    scheduled = [line for line in reached if line != "nightly 5 RunConfig"]
    assert scheduled
    assert all(re.fullmatch(r"nightly-\d{8}-\d{4} 2 RunConfig", line) for line in scheduled)


def _deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _completed(run: FlowRun) -> bool:
    assert run.state is None or run.state.type not in (StateType.FAILED, StateType.CRASHED), run.state
    return run.state is not None and run.state.type == StateType.COMPLETED


@pytest.mark.engine
def test_a_pool_the_server_does_not_have_is_named(client):
    with pytest.raises(UserError, match="--work-pool gpus: the server has no such pool; prefect work-pool create gpus"):
        make(work_pool="gpus")


@pytest.mark.parametrize("cron", ["every night", "61 * * * *", "* * * * * *", ""])
def test_a_schedule_that_cannot_be_read_is_refused_without_a_server(cron):
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(UserError, match=r"--cron .* such as '0 3"):
        make(cron=cron)


def test_a_name_that_leaves_no_room_for_the_scheduled_time_is_refused():
    with pytest.raises(UserError, match="has 50 characters, and a schedule adds date and time to it"):
        make(CONFIG.model_copy(update={"run": "n" * 50}), cron="0 3 * * *")


def test_without_a_server_to_deploy_to_the_error_says_how_to_name_one():
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(UserError, match="set PREFECT_API_URL="):
        make()


def test_a_server_that_does_not_answer_is_named_without_its_credentials():
    url = f"http://user:secret@127.0.0.1:{free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises(UserError, match="no Prefect server answers") as error,
    ):
        make()
    assert "secret" not in str(error.value)


@pytest.mark.engine
def test_the_project_file_deploys_to_a_work_pool(client, prefect_server, tmp_path):
    """infra/prefect.yaml through Prefect's own command: the flow where the images have it, the config as the form."""
    root = Path(__file__).resolve().parents[2]
    client.create_work_pool(WorkPoolCreate(name="ratchet", type="process"))
    env = {**os.environ, "PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(root)}
    words = ["--no-prompt", "deploy", "--all", "--prefect-file", "infra/prefect.yaml"]
    done = subprocess.run([find_program("prefect"), *words], cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = client.read_deployment_by_name("align/nightly")
    assert deployment.entrypoint == "flows/align.py:align"
    assert deployment.work_pool_name == "ratchet"
    assert RunConfig.model_validate(deployment.parameters["config"]).run == "nightly"


@pytest.mark.engine
def test_prefect_keeps_a_deployment_in_postgresql(postgres_server, tmp_path):
    """The server of the compose file: a schedule is planned there too, and survives a restart of the server."""
    for visit in range(2):
        with (
            prefect_api(tmp_path, postgres_server) as api,
            temporary_settings({PREFECT_API_URL: api}),
            get_client(sync_client=True) as client,
        ):
            if visit == 0:
                make(name="kept", cron="0 3 * * *")
            deployment = client.read_deployment_by_name("standin/kept")
            assert until(lambda d=deployment, c=client: runs_of(c, d), seconds=180)
