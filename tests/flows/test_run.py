"""A whole run: what it left, the same run again, and as a deployment."""

import json
from pathlib import Path

import pytest
from whole_runs import RECIPE, ratchet, run_tiny

from tasks.history import read_run, read_steps
from tasks.steps import Place

NOBODY = "127.0.0.1:1"
pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_run_goes_through_every_step_of_every_round(undisturbed: Path):
    summary = read_run(str(undisturbed / "runs"), "tiny")
    assert [r.round for r in summary.rounds] == [0, 1]
    for r in summary.rounds:
        assert {"generate", "score", "select", "train", "answers", "answers-scored"} <= set(r.steps)
        assert r.metrics["kl_initial"] is not None
        assert r.metrics["tokens"]


def test_the_first_loss_is_log_two_where_training_starts_from_its_reference(undisturbed: Path):
    """Policy and reference are the same, so every margin is 0 and -log sigmoid(0) = log 2."""
    train = read_steps(Place(store=str(undisturbed / "runs"), run="tiny", folder="round-000"))["train"]
    assert train.artifact.facts["first_loss"] == pytest.approx(0.6931472, abs=1e-5)


def test_every_probe_is_recorded_and_holds(undisturbed: Path):
    steps = read_steps(Place(store=str(undisturbed / "runs"), run="tiny", folder="round-000"))
    assert set(steps["generate"].artifact.facts["probes"]) == {"weights"}
    assert "reward" in steps["score"].artifact.facts["probes"]
    assert "reload" in steps["train"].artifact.facts["probes"]


def test_the_same_command_again_finds_everything_and_starts_no_engine(undisturbed: Path, monkeypatch):
    """Where neither Ray nor Prefect answers, nothing could be started."""
    monkeypatch.setenv("PREFECT_API_URL", f"http://{NOBODY}/api")
    said = run_tiny(undisturbed, str(undisturbed / "runs"), "--engine.address", NOBODY)
    assert "made in" not in said
    assert said.count(" found") >= 30
    assert (undisturbed / "tiny.html").read_text().startswith("<!doctype html>")


def test_a_plan_of_a_finished_run_says_so_and_writes_nothing(undisturbed: Path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", f"http://{NOBODY}/api")
    before = sorted((undisturbed / "runs").rglob("*"))
    driver = ratchet(undisturbed, "plan", str(RECIPE), "--store", str(undisturbed / "runs"), "--run", "another")
    said, _ = driver.communicate(timeout=600)
    assert "Everything is found: a run would start no engine." in said
    assert sorted((undisturbed / "runs").rglob("*")) == before


def test_show_prints_the_documented_form(undisturbed: Path):
    driver = ratchet(undisturbed, "show", "tiny", "--store", str(undisturbed / "runs"), "--json")
    said, _ = driver.communicate(timeout=600)
    shown = json.loads(said)
    assert set(shown) == {"run", "store", "config", "initial", "rounds"}
    assert set(shown["rounds"][0]) == {"round", "verdict", "reasons", "policy", "steps", "metrics"}
    assert set(shown["rounds"][0]["steps"]["train"]) == {"uri", "recipe", "seconds", "reused"}
    wanted = (
        "reward_mean gold_mean gold_low gold_high win_rate win_rate_low win_rate_high kl_initial length_mean "
        "length_ratio distinct_2 truncated_rate pairs dropped tokens engine_seconds"
    )
    assert set(wanted.split()) <= set(shown["rounds"][0]["metrics"])


def test_the_exported_policy_gives_the_stored_log_probabilities(undisturbed: Path, tmp_path: Path):
    """Plain transformers on the exported folder, against the ``logprobs`` step of the promoted policy's answers."""
    import torch
    from transformers import AutoModelForCausalLM

    from alignment.types import Group, SequenceLogprobs
    from infra import artifacts

    store = str(undisturbed / "runs")
    driver = ratchet(undisturbed, "export", "tiny", str(tmp_path / "out"), "--store", store)
    driver.communicate(timeout=600)
    assert driver.returncode == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    steps = read_steps(Place(store=store, run="tiny", folder="round-001"))
    group = next(iter(artifacts.read_rows(steps["answers"].artifact, Group)))
    stored = next(iter(artifacts.read_rows(steps["answers-logprobs"].artifact, SequenceLogprobs)))
    ids = torch.tensor([[*group.prompt_ids, *group.candidates[0].token_ids]])
    with torch.no_grad():
        logprobs_T = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    plain = logprobs_T[len(group.prompt_ids) - 1 :].sum().item()
    assert plain == pytest.approx(stored.logprobs[0], abs=1e-3)


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
