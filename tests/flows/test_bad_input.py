"""What a user can mend ends in one clear line and exit status 2, before an engine starts."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole_runs import ROOT, Done, Driver

pytestmark = pytest.mark.slow

RECIPE = """
rounds = 1
policy = "{policy}"
prompts = {{ type = "file", path = "{prompts}" }}
reward = {{ type = "verifier", function = "alignment.testbed.sandbox:gold" }}
sampler.decoding.max_tokens = 16
evaluate.decoding.max_tokens = 16
"""
PROMPTS = [{"prompt": f"Write a short note to Anna, number {i}."} for i in range(40)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(tmp_path_factory.mktemp("driver"))
    yield driver
    driver.close()


def recipe(folder: Path, policy: Path | str, prompts: bytes | None, name: str = "prompts.jsonl") -> Path:
    if prompts is not None:
        (folder / name).write_bytes(prompts)
    path = folder / "bad.toml"
    path.write_text(RECIPE.format(policy=policy, prompts=folder / name))
    return path


def lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def refused(done: Done, *said: str) -> None:
    told = [line for line in done.said.splitlines() if line.startswith("ratchet: ")]
    assert done.status == 2, done.said
    assert len(told) == 1, done.said
    assert "Traceback" not in done.said
    for part in said:
        assert part in told[0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (b"", "empty"),
        (lines(PROMPTS[:2]) + b'{"prompt": \n', "line 3"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (lines(PROMPTS[:1]) + b'{"prompt": "caf\xe9"}\n', "UTF-8"),
    ],
    ids=["empty", "malformed", "lfs-pointer", "not-utf-8"],
)
def test_a_bad_prompt_file_is_named_with_its_line(run, tmp_path: Path, tiny_policy: Path, rows: bytes, said: str):
    refused(run(tmp_path, "plan", str(recipe(tmp_path, tiny_policy, rows))), "prompts.jsonl", said)


def test_a_missing_prompt_file_is_named(run, tmp_path: Path, tiny_policy: Path):
    refused(run(tmp_path, "plan", str(recipe(tmp_path, tiny_policy, None))), "prompts.jsonl")


def test_a_prompt_longer_than_the_context_is_named_with_both_numbers(run, tmp_path: Path, tiny_policy: Path):
    rows = lines([*PROMPTS, {"prompt": "word " * 400}])
    done = run(tmp_path, "run", str(recipe(tmp_path, tiny_policy, rows)))
    refused(done, "tokens", "context of 128", "--skip-bad-rows")


def test_an_empty_completion_is_named_by_line(run, tmp_path: Path, tiny_policy: Path):
    rows = [{"prompt": f"p{i}", "chosen": "yes", "rejected": "no" if i != 5 else ""} for i in range(40)]
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wb") as file:
        file.write(lines(rows))
    words = ("--pairs.path", "pairs.jsonl.gz", "--policy", str(tiny_policy))
    refused(run(tmp_path, "plan", "offline_dpo", *words), "pairs.jsonl.gz", "line 6", "--skip-bad-rows")


def test_a_model_directory_without_weights_is_named(run, tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    refused(run(tmp_path, "plan", str(recipe(tmp_path, tmp_path / "model", lines(PROMPTS)))), "model", "safetensors")


def test_a_tokenizer_that_differs_between_policy_and_reference_is_refused(
    run, tmp_path: Path, tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory
):
    import shutil

    other = tmp_path_factory.mktemp("other") / "policy"
    shutil.copytree(tiny_policy, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[20:22]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    reward = f"{{ type = 'implicit', policy = '{tiny_policy}', reference = '{other}' }}"
    path = recipe(tmp_path, tiny_policy, lines(PROMPTS))
    path.write_text(
        path.read_text().replace(
            'reward = { type = "verifier", function = "alignment.testbed.sandbox:gold" }', f"reward = {reward}"
        )
    )
    refused(run(tmp_path, "plan", str(path)), "tokenizer")


def test_a_store_that_cannot_be_reached_is_named(run, tmp_path: Path, tiny_policy: Path):
    (tmp_path / "file").write_text("not a folder")
    path = recipe(tmp_path, tiny_policy, lines(PROMPTS))
    refused(run(tmp_path, "plan", str(path), "--store", str(tmp_path / "file")), str(tmp_path / "file"))


def test_a_store_in_the_memory_of_one_process_is_refused(run, tmp_path: Path, tiny_policy: Path):
    path = recipe(tmp_path, tiny_policy, lines(PROMPTS))
    refused(run(tmp_path, "run", str(path), "--store", "memory://runs"), "memory://runs", "a run has many")


def test_a_run_name_with_another_configuration_names_the_fields_that_differ(run, tmp_path: Path, tiny_policy: Path):
    from infra import artifacts
    from tasks.recipe import load_config
    from tasks.start import identity

    path = recipe(tmp_path, tiny_policy, lines(PROMPTS))
    config = load_config(str(path), [], shipped=tmp_path)
    artifacts.claim_run(str(tmp_path / "runs"), "bad", identity(config))
    done = run(tmp_path, "plan", str(path), "--store", str(tmp_path / "runs"), "--train.learning_rate", "0.5")
    refused(done, "train.learning_rate", "0.0001", "0.5", "fork")


def test_an_unknown_key_is_told_with_its_dotted_path(run, tmp_path: Path):
    refused(run(tmp_path, "run", "quickstart", "--sampler.decoding.temprature", "1"), "sampler.decoding.temprature")


def test_a_head_size_that_the_sampler_lacks_is_refused_before_the_policy_is_trained(run, tmp_path: Path):
    done = run(tmp_path, "run", "quickstart", "--policy.architecture.heads", "8")
    refused(done, "policy.architecture: attention heads of size 16; vLLM on a CPU has 32, 64")


def test_help_takes_less_than_a_second_and_imports_no_engine():
    code = "import sys, flows.cli\ntry:\n flows.cli.main(['run', '--help'])\nexcept SystemExit: pass\n"
    check = "print(sorted({'torch', 'vllm', 'ray', 'prefect', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
