"""The same run on a Ray cluster, under a Prefect deployment, and on S3."""

from pathlib import Path

import pytest
from whole_runs import RECIPE, digests, ratchet, recipes, run_tiny

from tasks.history import read_run

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_submitted_run_trains_on_the_cluster_and_returns_its_status(undisturbed: Path, ray_head, monkeypatch):
    """Another seed, so that sampling and training happen there; the models trained from scratch are found."""
    for name, value in ray_head.env.items():
        monkeypatch.setenv(name, value)
    store = str(undisturbed / "runs")
    words = ("--address", ray_head.jobs, "--store", store, "--run", "submitted", "--rounds", "1", "--seed", "1")
    driver = ratchet(undisturbed, "submit", str(RECIPE), *words)
    said, _ = driver.communicate(timeout=1500)
    assert driver.returncode == 0, said
    steps = read_run(store, "submitted").rounds[0].steps
    assert not any(steps[name].reused for name in ("generate", "train", "answers"))


def test_a_served_deployment_runs_the_real_flow(undisturbed: Path, prefect_server: str, monkeypatch):
    """Triggered from the server as its dashboard does; equal work is found, so the run takes seconds."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from test_deploy import _completed, _deployment, until

    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    store = str(undisturbed / "runs")
    words = ("--serve", "--store", store, "--run", "deployed")
    driver = ratchet(undisturbed, "deploy", str(RECIPE), *words)
    try:
        with temporary_settings({PREFECT_API_URL: prefect_server}), get_client(sync_client=True) as client:
            deployment = until(lambda: _deployment(client, "align/deployed"), seconds=300)
            run = client.create_flow_run_from_deployment(deployment.id)
            until(lambda: _completed(client.read_flow_run(run.id)), seconds=600)
    finally:
        driver.terminate()
        driver.communicate()
    assert all(step.reused for r in read_run(store, "deployed").rounds for step in r.steps.values())


@pytest.mark.s3
def test_the_same_recipe_on_s3_gives_the_same_recipes_and_digests(
    undisturbed: Path, s3_bucket: str, prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    store = f"{s3_bucket}/ratchet"
    run_tiny(tmp_path, store, "--rounds", "1")
    local = str(undisturbed / "runs")
    first = ("start", "round-000")
    assert digests(store, folders=first) == digests(local, folders=first)
    assert recipes(store, folders=first) == recipes(local, folders=first)
