"""A run as a Ray job: submitted once, its log streamed, its exit status returned."""

import asyncio
import logging
import shlex
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from alignment.errors import Conflict, UserError
from alignment.secrets import without_credentials
from alignment.types import digest_of

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

RECIPE = "recipe.toml"


def submit(recipe_text: bytes, overrides: list[str], address: str, run: str) -> int:
    """Run a recipe as a job of the cluster whose job server is at ``address``; the run's exit status.

    The job is named after the run, so that a run is at work at most once per cluster: submitting it again joins the
    job at work, and Conflict says when that one was given another recipe or other overrides. Credentials come from
    the cluster's own environment, never from here. UserError when no job server answers.
    """
    client = _connect(address)
    asked = digest_of([recipe_text.decode(), overrides])
    job = _join(client, run, asked) or _start(client, run, asked, recipe_text, overrides)
    print(f"job {job} at {_plain(address)}", file=sys.stderr)
    try:
        ended = asyncio.run(_follow(client, job))
    except OSError as error:
        raise UserError(
            f"{_plain(address)}: stopped answering ({error}); the job goes on there, and the same command joins it"
        ) from None
    return _exit_status(job, ended)


def _connect(address: str) -> "JobSubmissionClient":
    from ray.exceptions import AuthenticationError  # a second and a half that only this command pays
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.WARNING)  # after the import, which sets it to tell of every request
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"--address {without_credentials(address)}: not a job server's address, such as http://127.0.0.1:8265"
        )
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=10).close()  # the client itself waits for minutes
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise UserError(
            f"{_plain(address)}: the cluster refused the token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from None
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{_plain(address)}: no Ray job server answers there ({error}); start it with ray start --head"
        ) from None


def _plain(address: str) -> str:
    """The address without credentials."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _attempts(client: "JobSubmissionClient", run: str) -> dict[int, "JobDetails"]:
    """The run's jobs by attempt: ``ratchet-{run}-{attempt}``."""
    jobs = ((job.submission_id or "", job) for job in client.list_jobs())
    named = ((name.rpartition("-"), job) for name, job in jobs)
    return {int(n): job for (stem, _, n), job in named if stem == f"ratchet-{run}" and n.isdigit()}


def _join(client: "JobSubmissionClient", run: str, asked: str) -> str | None:
    """The run's job that is at work, if there is one."""
    for job in _attempts(client, run).values():
        if not job.status.is_terminal() and job.submission_id:
            if (job.metadata or {}).get("asked") != asked:
                raise Conflict(
                    f"run {run!r} is at work with another recipe or other overrides, as job {job.submission_id}: wait "
                    f"for it, stop it (ray job stop {job.submission_id}), or submit under another name (--run NAME)"
                )
            return job.submission_id
    return None


def _start(client: "JobSubmissionClient", run: str, asked: str, recipe_text: bytes, overrides: list[str]) -> str:
    """A new attempt. Ray refuses a name that is taken, so of two submitters one starts it and the other joins."""
    attempt = max(_attempts(client, run), default=0) + 1
    words = ["python", "-u", "-m", "flows.cli", "run", RECIPE, *overrides, "--run", run]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / RECIPE).write_bytes(recipe_text)
        try:
            return client.submit_job(
                entrypoint=shlex.join(words),
                submission_id=f"ratchet-{run}-{attempt}",
                runtime_env={"working_dir": folder},
                metadata={"run": run, "asked": asked},
            )
        except RuntimeError as error:
            if "already exists" not in str(error):
                raise
    return _join(client, run, asked) or _start(client, run, asked, recipe_text, overrides)


async def _follow(client: "JobSubmissionClient", job: str) -> "JobDetails":
    """Print the job's log until it ends; a lost connection is taken up again where it broke off."""
    import aiohttp

    printed = 0
    while True:
        seen = 0
        with suppress(aiohttp.ClientError, RuntimeError):  # the loop answers: it asks again until the job has ended
            async for text in client.tail_job_logs(job):
                fresh = text[max(0, printed - seen) :]
                seen += len(text)
                printed = max(printed, seen)
                print(fresh, end="", flush=True)
        details = client.get_job_info(job)
        if details.status.is_terminal():
            return details
        await asyncio.sleep(1)


def _exit_status(job: str, details: "JobDetails") -> int:
    """The driver's own exit status; 1, with the cluster's reason, for a job that ended without one."""
    if details.driver_exit_code is not None:
        return details.driver_exit_code
    print(f"job {job}: {details.status.value.lower()}: {details.message}", file=sys.stderr)
    return 1
