"""Keys that are rotated while a run is under way: the next request uses the new ones, and nobody has to start again."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import boto3
import botocore.session
import pytest
import requests
from moto.server import ThreadedMotoServer

from alignment.errors import UserError
from infra import storage

ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
ANYTHING = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'


class Keys(NamedTuple):
    id: str
    secret: str
    token: str = ""


def use(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    """Through the environment."""
    for name, value in zip(ENVIRONMENT, keys, strict=True):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)


def write(file: Path, keys: Keys) -> None:
    """Through the shared credentials file."""
    lines = [f"aws_access_key_id = {keys.id}", f"aws_secret_access_key = {keys.secret}"]
    lines += [f"aws_session_token = {keys.token}"] if keys.token else []
    file.write_text("\n".join(["[default]", *lines, ""]))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path / "credentials"


class Account(NamedTuple):
    """Somebody's access to one bucket, and what may become of it."""

    store: str
    issue: Callable[[], Keys]
    """New keys, beside those that there are."""
    revoke: Callable[[Keys], None]


@pytest.fixture
def imitation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An imitation of S3 that asks for valid keys: those of a role, which come with a token and expire."""
    from moto.sts.models import sts_backends

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    root = {"aws_access_key_id": "root", "aws_secret_access_key": "root", "endpoint_url": endpoint}
    bucket = f"rotated-{uuid4().hex[:12]}"
    boto3.client("s3", **root).create_bucket(Bucket=bucket)
    iam, sts = boto3.client("iam", **root), boto3.client("sts", **root)
    role = iam.create_role(RoleName=bucket, AssumeRolePolicyDocument=ANYTHING)["Role"]
    iam.put_role_policy(RoleName=bucket, PolicyName="all", PolicyDocument=ANYTHING)

    def asking(after: str) -> None:
        requests.post(f"{endpoint}/moto-api/reset-auth", data=after, timeout=10).raise_for_status()

    def issue() -> Keys:
        asking("inf")
        issued = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="test")["Credentials"]
        asking("0")
        return Keys(issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"])

    def revoke(keys: Keys) -> None:
        roles = sts_backends["123456789012"]["aws"].assumed_roles
        roles[:] = [role for role in roles if role.access_key_id != keys.id]

    try:
        yield Account(f"s3://{bucket}/prefix", issue, revoke)
    finally:
        asking("inf")
        server.stop()


@pytest.fixture
def gateway(s3_server, monkeypatch: pytest.MonkeyPatch) -> Account:
    """A user of the real server with a bucket and keys of its own."""
    user, first = f"rotating-{uuid4().hex[:8]}", Keys(secrets.token_hex(10), secrets.token_hex(20))
    named = ("--access-key", first.id, "--secret-key", first.secret)
    s3_server.gateway.admin("user", "create", f"--uid={user}", "--display-name=rotating", *named)
    bucket = f"rotated-{uuid4().hex[:12]}"
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=s3_server.gateway.endpoint,
        region_name="us-east-1",
        aws_access_key_id=first.id,
        aws_secret_access_key=first.secret,
    )
    client.create_bucket(Bucket=bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.gateway.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    waiting = [first]

    def issue() -> Keys:
        if waiting:
            return waiting.pop()
        keys = Keys(secrets.token_hex(10), secrets.token_hex(20))
        told = ("--access-key", keys.id, "--secret-key", keys.secret)
        s3_server.gateway.admin("key", "create", f"--uid={user}", "--key-type=s3", *told)
        return keys

    def revoke(keys: Keys) -> None:
        s3_server.gateway.admin("key", "rm", f"--uid={user}", "--key-type=s3", "--access-key", keys.id)

    return Account(f"s3://{bucket}/prefix", issue, revoke)


@pytest.fixture(params=["imitation", pytest.param("gateway", marks=pytest.mark.s3)])
def account(request: pytest.FixtureRequest) -> Account:
    return request.getfixturevalue(request.param)


def test_new_keys_of_the_environment_are_used_at_once(account: Account, monkeypatch):
    first = account.issue()
    use(monkeypatch, first)
    assert storage.put_once(account.store, "a", b"one")
    second = account.issue()
    account.revoke(first)
    use(monkeypatch, second)
    assert storage.read(account.store, "a") == b"one"
    assert storage.put_once(account.store, "b", b"two")


def test_a_token_alone_that_changes_is_a_change(imitation: Account, monkeypatch):
    """The same key id and secret: a cache by key id would go on with the old token."""
    keys = imitation.issue()
    use(monkeypatch, keys._replace(token="not-the-token"))
    with pytest.raises(UserError, match="cannot use a"):
        storage.put_once(imitation.store, "a", b"one")
    use(monkeypatch, keys)
    assert storage.put_once(imitation.store, "a", b"one")


@pytest.mark.s3
def test_a_secret_alone_that_changes_is_a_change(gateway: Account, s3_server, monkeypatch):
    keys = gateway.issue()
    use(monkeypatch, keys._replace(secret="not-the-secret"))
    with pytest.raises(UserError, match="cannot use a"):
        storage.put_once(gateway.store, "a", b"one")
    use(monkeypatch, keys)
    assert storage.put_once(gateway.store, "a", b"one")


def swapped(store: str) -> bool:
    data, version = storage.read_version(store, "pointer") or (b"", "")
    return storage.swap(store, "pointer", data + b"+", version)


OPERATIONS: dict[str, Callable[[str, Path], object]] = {
    "read": lambda store, _: storage.read(store, "a") == b"one",
    "size": lambda store, _: storage.size(store, "a") == 3,
    "list": lambda store, _: storage.folders(store, "folder") == ["x"],
    "write": lambda store, _: storage.write_all(store, "more", {"y": b"2"}) or storage.size(store, "more/y") == 1,
    "create": lambda store, _: storage.create(store, "new", b"three"),
    "swap": lambda store, _: swapped(store),
    "download": lambda store, to: storage.download(store, "a", to / "a") or (to / "a").read_bytes() == b"one",
    "remove": lambda store, _: storage.remove(store, "a") or storage.read(store, "a") is None,
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_keys_that_expire_under_way_are_read_anew_from_where_they_came(
    account: Account, file: Path, tmp_path: Path, operation: str
):
    """A file that somebody else keeps fresh. The server refuses the old keys first; the caller does not notice."""
    first = account.issue()
    write(file, first)
    for path, data in {"a": b"one", "pointer": b"here", "folder/x/y": b"1"}.items():
        storage.create(account.store, path, data)
    second = account.issue()
    account.revoke(first)
    write(file, second)
    assert OPERATIONS[operation](account.store, tmp_path)


def test_keys_that_nobody_renewed_are_told_in_one_line(account: Account, file: Path):
    keys = account.issue()
    write(file, keys)
    assert storage.put_once(account.store, "a", b"one")
    account.revoke(keys)
    with pytest.raises(UserError, match=r"cannot use a \(.*\); check the address, its permissions and its") as told:
        storage.read(account.store, "a")
    assert str(told.value).isprintable()
    assert keys.secret not in str(told.value)


def test_a_refusal_is_asked_again_once(account: Account, file: Path, monkeypatch):
    from infra import renewing_s3

    keys, renewed = account.issue(), []
    write(file, keys)
    assert storage.put_once(account.store, "a", b"one")
    account.revoke(keys)
    renew = renewing_s3.RenewingS3._renew

    async def counted(self, used):
        renewed.append(used)
        await renew(self, used)

    monkeypatch.setattr(renewing_s3.RenewingS3, "_renew", counted)
    with pytest.raises(UserError):
        storage.read(account.store, "a")
    assert len(renewed) == 1
