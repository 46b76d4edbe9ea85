"""Real servers for integration tests, one of each per test session; skipped, with the reason, where not installed."""

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from ceph_gateway import KEY, PROGRAMS, SECRET, CephGateway
from programs import answers, find_program, free_port, need, running, wait_until

ROOT = Path(__file__).resolve().parents[1]


class S3Server(NamedTuple):
    """Where the server is, and what its clients' environment says."""

    gateway: CephGateway
    env: dict[str, str]

    def bucket(self) -> str:
        """A fresh bucket, as ``s3://name``."""
        import botocore.session

        name, own = f"test-{secrets.token_hex(6)}", self.env
        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.gateway.endpoint,
            region_name=own["AWS_DEFAULT_REGION"],
            aws_access_key_id=own["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=own["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=name)
        return f"s3://{name}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    need(*PROGRAMS)
    # not pytest's folder: the daemons' sockets must have paths of at most 107 characters
    with tempfile.TemporaryDirectory(prefix="ceph-", ignore_cleanup_errors=True) as folder:
        gateway = CephGateway(Path(folder))
        try:
            gateway.create()
            yield S3Server(gateway, _client_environment(gateway.endpoint))
        finally:
            gateway.kill()


def _client_environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket, as ``s3://name``, with endpoint and credentials in the environment."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return s3_server.bucket()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server with an empty database ``prefect``, as a URL for asyncpg."""
    bin_folder = _postgres_programs()
    port, log = free_port(), tmp_path_factory.mktemp("postgres-log") / "postgres.log"
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        as_user = _as_unprivileged(Path(folder))
        data = f"{folder}/data"
        initdb = [bin_folder / "initdb", "-D", data, "-U", "prefect", "-A", "trust", "--no-sync"]
        subprocess.run([*as_user, *initdb], check=True, cwd=folder, capture_output=True)
        options = ["-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-c", "fsync=off"]
        with running([*as_user, str(bin_folder / "postgres"), *options], log):
            at = ["-h", "127.0.0.1", "-p", str(port), "-U", "prefect"]
            ready = [bin_folder / "pg_isready", *at]
            wait_until(lambda: subprocess.run(ready, capture_output=True).returncode == 0, "postgres", log)
            subprocess.run([bin_folder / "createdb", *at, "prefect"], check=True)
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"


def _postgres_programs() -> Path:
    """Debian keeps the server's programs off the PATH, one folder per version."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not versions:
        pytest.skip("postgresql not installed (make services)")
    return versions[-1].parent


def _as_unprivileged(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: run it as Debian's ``postgres`` there."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect API server on SQLite; its API's URL."""
    with prefect_api(tmp_path_factory.mktemp("prefect")) as api:
        yield api


@contextmanager
def prefect_api(home: Path, database: str | None = None) -> Iterator[str]:
    """A Prefect API server with its own home; its API's URL, once it is healthy."""
    port, log = free_port(), home / "server.log"
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        **({"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}),
    }
    program = find_program("prefect") or "prefect"
    with running([program, "server", "start", "--host", "127.0.0.1", "--port", str(port)], log, env):
        api = f"http://127.0.0.1:{port}/api"
        wait_until(lambda: answers(f"{api}/health"), "prefect server", log, seconds=400)
        yield api


class RayHead(NamedTuple):
    """A Ray cluster of one node with its job server."""

    jobs: str
    """URL of the job server."""
    env: dict[str, str]
    """What clients need in their environment: the cluster's token."""


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    need("ray")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    jobs, gcs = free_port(), free_port()
    log = tmp_path_factory.mktemp("ray-log") / "ray.log"
    # a short folder of its own: sockets again, and Ray's default one would make this the cluster every ray.init() joins
    folder = tempfile.mkdtemp(prefix="ray-")
    ports = [f"--port={gcs}", f"--dashboard-port={jobs}", f"--dashboard-agent-listen-port={free_port()}"]
    limits = ["--num-cpus=8", "--num-gpus=0", f"--object-store-memory={256 * 2**20}", f"--temp-dir={folder}"]
    shape = [
        "--node-ip-address=127.0.0.1",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        "--disable-usage-stats",
    ]
    try:
        program = find_program("ray") or "ray"
        # jobs are started as plain "python": let them find this environment's
        env = {**token, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        with running([program, "start", "--head", "--block", *ports, *limits, *shape], log, env):
            url = f"http://127.0.0.1:{jobs}"
            wait_until(lambda: answers(f"{url}/api/version"), "ray head", log)
            yield RayHead(url, token)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
