"""Jobs on a real Ray head: one at a time per run, the log streamed, the driver's own exit status returned."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from programs import free_port

from alignment.config import RunConfig
from alignment.errors import Conflict, UserError
from alignment.types import digest_of
from infra.submit import submit
from tasks.submit import submit_run

BROKEN = b'run = "broken"\nruonds = 3\n'


@pytest.fixture
def jobs(ray_head, monkeypatch) -> Iterator[str]:
    """The job server's URL, with the cluster's token in force: Ray reads its token once per process, and an earlier
    test of this process may have used Ray without one."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    with monkeypatch.context() as patch:
        for name, value in ray_head.env.items():
            patch.setenv(name, value)
        reset_auth_token_state()
        yield ray_head.jobs
    reset_auth_token_state()


@pytest.fixture
def client(jobs):
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(jobs)


def asked(recipe: bytes, overrides: list[str]) -> dict[str, str]:
    return {"asked": digest_of([recipe.decode(), overrides])}


@pytest.mark.engine
def test_a_recipe_that_cannot_be_read_ends_the_job_with_the_runs_own_status_2(jobs, client, capfd):
    status = submit(BROKEN, ["--rounds", "2"], jobs, "broken")
    assert status == 2
    assert "unknown key 'ruonds'; did you mean 'rounds'?" in capfd.readouterr().out
    job = client.get_job_info("ratchet-broken-1")
    assert job.entrypoint == ("python -u -m flows.cli run recipe.toml --rounds 2 --run broken")


@pytest.mark.engine
def test_a_run_that_is_at_work_is_joined_not_started_twice(jobs, client, capfd):
    """Somebody's job of this run and recipe prints, waits and exits 7: submitting joins it and returns 7."""
    client.submit_job(
        entrypoint="echo before; sleep 4; echo after; exit 7",
        submission_id="ratchet-busy-1",
        metadata=asked(b"recipe", ["--rounds", "2"]),
    )
    assert submit(b"recipe", ["--rounds", "2"], jobs, "busy") == 7
    printed = capfd.readouterr().out.splitlines()
    assert [line for line in printed if line in ("before", "after")] == ["before", "after"]
    assert "ratchet-busy-2" not in {job.submission_id for job in client.list_jobs()}


@pytest.mark.engine
def test_a_run_at_work_with_another_recipe_is_a_conflict_that_names_its_job(jobs, client):
    client.submit_job(entrypoint="sleep 60", submission_id="ratchet-taken-3", metadata=asked(b"recipe", []))
    with pytest.raises(Conflict, match="ray job stop ratchet-taken-3"):
        submit(b"another recipe", [], jobs, "taken")
    client.stop_job("ratchet-taken-3")


@pytest.mark.engine
def test_a_job_that_is_stopped_ends_with_status_1_and_the_reason(jobs, client, capfd):
    client.submit_job(entrypoint="sleep 60", submission_id="ratchet-stopped-1", metadata=asked(b"recipe", []))
    stop = threading.Timer(3, client.stop_job, ["ratchet-stopped-1"])
    stop.start()
    assert submit(b"recipe", [], jobs, "stopped") == 1
    assert "job ratchet-stopped-1: stopped" in capfd.readouterr().err


@pytest.mark.engine
def test_of_two_submitters_one_starts_the_next_attempt_and_both_get_its_status(jobs, client):
    """The run's first attempt has ended already; the two that come at once make the second, not a third."""
    submit(BROKEN, [], jobs, "raced")
    statuses: list[int] = []
    both = [threading.Thread(target=lambda: statuses.append(submit(BROKEN, [], jobs, "raced"))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert statuses == [2, 2]
    assert "ratchet-raced-2" in {job.submission_id for job in client.list_jobs()}


@pytest.mark.engine
def test_a_wrong_token_is_said_and_not_shown(jobs, ray_head):
    """In a process of its own: Ray reads the token once per process."""
    code = f"from infra.submit import submit; submit(b'', [], {jobs!r}, 'broken')"
    env = {**os.environ, **ray_head.env, "RAY_AUTH_TOKEN": "wrong" * 8}
    tried = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "UserError" in tried.stderr
    assert "the cluster refused the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in tried.stderr
    assert "wrongwrong" not in tried.stdout + tried.stderr


def test_an_address_where_nobody_answers_is_named_without_its_credentials():
    with pytest.raises(UserError, match="no Ray job server answers there") as error:
        submit(BROKEN, [], f"http://user:secret@127.0.0.1:{free_port()}", "broken")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://127.0.0.1:10001", "auto"])
def test_an_address_that_is_not_a_job_servers_is_refused(address):
    with pytest.raises(UserError, match=r"such as http://127\.0\.0\.1:8265"):
        submit(BROKEN, [], address, "broken")


def test_files_of_this_folder_are_refused_before_anything_is_submitted(tmp_path):
    """./runs would lie in the job's own folder, and be deleted with it."""
    recipe = tmp_path / "mine.toml"
    recipe.write_bytes(BROKEN)
    config = RunConfig.model_validate(
        {
            "run": "mine",
            "policy": "some/policy",
            "prompts": {"type": "file", "path": "prompts.jsonl"},
            "reward": {"type": "scalar_head", "model": "some/reward"},
        }
    )
    with pytest.raises(UserError, match=r"store = './runs', prompts\.path = 'prompts\.jsonl': relative to this folder"):
        submit_run(config, recipe, [], address="http://127.0.0.1:1")
