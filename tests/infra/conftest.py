"""Every claim about the store is held in memory, on disk and on S3: a real server, or an imitation where none is."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from ceph_gateway import PROGRAMS
from moto.server import ThreadedMotoServer
from programs import find_program

from infra import file_systems

SERVED = all(find_program(program) for program in PROGRAMS)
S3 = pytest.param("ceph", marks=pytest.mark.s3) if SERVED else "imitation"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_store(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the test's own, reached as users do: through the environment."""
    for name, value in (
        ("AWS_ENDPOINT_URL", s3_endpoint),
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/prefix"


@pytest.fixture(params=["memory", "local", S3])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    match request.param:
        case "memory":
            return f"memory://{uuid4().hex}"
        case "local":
            return str(tmp_path / "store")
        case "imitation":
            return request.getfixturevalue("s3_store")
        case _:
            return f"{request.getfixturevalue('s3_bucket')}/prefix"


@pytest.fixture
def policy(tiny_policy: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_policy, tmp_path / "policy")


@pytest.fixture
def overwrite():
    """Damage a stored file behind the protocol's back."""

    def write(store: str, path: str, data: bytes) -> None:
        fs, root = file_systems.open_store(store)
        fs.pipe_file(f"{root}/{path}", data)

    return write
