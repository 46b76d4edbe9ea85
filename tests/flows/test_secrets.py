"""No secret of the environment or of an address is told, logged or kept: canaries are planted, and looked for."""

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from whole_runs import ROOT

from flows.cli import main

PLANTED = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "JUDGE_KEY",
    "PREFECT_API_KEY",
    "DATABASE_PASSWORD",
    "RAY_AUTH_TOKEN",
)
RECIPE = """
rounds = 1
policy = "{policy}"
max_missing = 1.0
prompts = {{ type = "file", path = "{prompts}" }}
reward = {{ type = "verifier", function = "careless_run:careless" }}
sampler.decoding.max_tokens = 16
evaluate.decoding.max_tokens = 16

[label]
type = "judge"
url = "http://127.0.0.1:9/v1"
model = "m"
key = "JUDGE_KEY"
retries = 0
ties = "half"
max_failure_rate = 1.0
"""


class Judge(BaseHTTPRequestHandler):
    """Echoes what it is sent, as careless servers and proxies do."""

    def do_POST(self):
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        echo = f"you sent {dict(self.headers)}"
        kind = self.path.split("/")[1]
        if kind == "broken":
            self.wfile.write(f"{echo}\r\n\r\n".encode())
            return
        unclear = echo if b"Say 1" in asked else "A"
        text = {"fine": "A", "unclear": unclear}.get(kind, "")
        body = json.dumps({"choices": [{"message": {"content": text}}]}) if kind != "denied" else echo
        self.send_response(401 if kind == "denied" else 200, echo if kind == "denied" else "OK")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def judge() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def canary() -> str:
    return f"canary{secrets.token_hex(12)}"


@pytest.fixture(scope="module")
def canaries() -> dict[str, str]:
    return {name: canary() for name in (*PLANTED, "endpoint")}


def write_recipe(folder: Path, policy: Path) -> Path:
    rows = [{"prompt": f"Say {i}."} for i in range(30)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "secretive.toml"
    path.write_text(RECIPE.format(policy=policy, prompts=folder / "prompts.jsonl"))
    return path


@pytest.fixture(scope="module")
def left(tiny_policy: Path, judge: str, canaries: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the careless run ran, with all that it said and left there."""
    folder = tmp_path_factory.mktemp("careless")
    recipe = write_recipe(folder, tiny_policy)
    settings = {
        **{name: canaries[name] for name in PLANTED},
        "AWS_ENDPOINT_URL": f"http://user:{canaries['endpoint']}@127.0.0.1:9",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "RATCHET_CACHE": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "flows"))),
    }
    program = Path(__file__).with_name("careless_run.py")
    done = subprocess.run(
        [sys.executable, str(program), str(recipe), judge],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=800,
    )
    (folder / "stdout.txt").write_text(done.stdout)
    (folder / "stderr.txt").write_text(done.stderr)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def holding(folder: Path, text: str) -> list[str]:
    """Every file, of whatever kind, that has the text in it as UTF-8 or UTF-16; rows are compressed, and are read."""
    wanted = (text.encode(), text.encode("utf-16-le"))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [str(path.relative_to(folder)) for path in files if any(w in content(path) for w in wanted)]


def content(path: Path) -> bytes:
    plain = path.read_bytes()
    return plain + str(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else plain


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*PLANTED, "endpoint"])
def test_a_secret_is_nowhere_in_what_a_run_says_or_leaves(left: Path, canaries: dict[str, str], name: str):
    assert holding(left, canaries[name]) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("said", "where"),
    [
        ("a careless reward signed in with ***", "runs/"),
        ("a careless reward signed in with ***", "fine.html"),
        ("a careless step", "prefect/prefect.db"),
        ("a careless step", "stderr.txt"),
        ("the careless run has started", "prefect/prefect.db"),
        ("http://***@127.0.0.1/ does not answer", "stderr.txt"),
        ('answered 401: "you sent', "stderr.txt"),
        ("AWS_ENDPOINT_URL holds credentials", "stderr.txt"),
        ("the endpoint does not answer", "stderr.txt"),
        ("unclear: ", "runs/"),
        ("nowhere.jsonl", "stderr.txt"),
        ("show ended with 0", "stdout.txt"),
        ("report ended with 0", "stdout.txt"),
        ("plan ended with 2", "stdout.txt"),
        ("run ended with 2", "stdout.txt"),
    ],
)
def test_what_was_said_beside_them_is_there(left: Path, said: str, where: str):
    """So the search looks where secrets would be."""
    assert [file for file in holding(left, said) if file.startswith(where)] != []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--label.key", "{}"), "label.key names the environment variable that holds the key, in capitals, never"),
        (("--label.api_key", "{}"), "label.api_key holds a secret"),
        (("label.api_key={}",), "label.api_key: not an override"),
        (("--label.url", "http://user:{}@127.0.0.1/v1"), "label.url holds a secret"),
        (("--label.url", "http://{}@127.0.0.1/v1"), "label.url holds a secret"),
        (("--label.url", "http://127.0.0.1/v1?api_key={}"), "label.url holds a secret"),
        (("--store", "s3://key:{}@bucket/prefix"), "store holds a secret"),
        (("--store", "s3://key:{}/more+of/it@bucket"), "store holds a secret"),
        (("--prompts.path", "https://user:{}@127.0.0.1/prompts.jsonl"), "prompts.path holds a secret"),
        (("--prompts.path", "https://a.b/p.jsonl?X-Amz-Signature={}&X-Amz-Expires=1"), "prompts.path holds a secret"),
        (("--policy", "https://user:{}@huggingface.co/a/b"), "policy holds a secret"),
        (("--reward.arguments", '{{ api_key = "{}" }}'), "reward.arguments.api_key holds a secret"),
        (("--engine.address", "ray://user:{}@127.0.0.1:10001"), "engine.address holds a secret"),
        (("--rounds", "http://user:{}@127.0.0.1"), "rounds holds a secret"),
        (("--sampler", '{{ password = "{}" }}'), "sampler.password holds a secret"),
        (("--label.url.more", "{}"), "'url' is already 'http://127.0.0.1:9/v1'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_recipe_that_holds_one_is_refused_by_its_place(
    tmp_path: Path, monkeypatch, capsys, command: str, words: tuple[str, ...], said: str
):
    """Before the orchestrator sees it: it stores a flow's parameters."""
    (tmp_path / "policy").mkdir()
    recipe, planted = write_recipe(tmp_path, tmp_path / "policy"), canary()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with pytest.raises(SystemExit) as end:
        main([command, str(recipe), *(word.format(planted) for word in words)])
    told = capsys.readouterr()
    assert end.value.code == 2
    assert told.err.startswith("ratchet: ")
    assert said in told.err
    assert told.err.count("\n") == 1
    assert planted not in told.err + told.out
    assert holding(tmp_path, planted) == []


@pytest.mark.parametrize(
    "command", [("show",), ("show", "r"), ("report", "r"), ("export", "r", "out"), ("fork", "r", "s")]
)
def test_a_store_that_is_addressed_with_one_is_refused(tmp_path: Path, monkeypatch, capsys, command):
    planted = canary()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([*command, "--store", f"s3://key:{planted}@bucket"])
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert said.err.startswith("ratchet: store s3://...: an address holds no credentials")
    assert planted not in said.err


def test_an_unexpected_error_is_shown_without_them(monkeypatch, capsys):
    planted = canary()
    monkeypatch.setenv("SOME_API_KEY", planted)
    monkeypatch.setattr("tasks.history.read_runs", lambda store, **asked: {}[f"a bug met {planted}"])
    with pytest.raises(SystemExit) as end:
        main(["show"])
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert "KeyError: 'a bug met ***'" in said
    assert planted not in said
