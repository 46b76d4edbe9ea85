"""Real steps under a real Prefect server, with failures on their way that hold secrets. ``test_secrets`` looks for what
became of them. Arguments: the recipe, and the judge's address."""

import os
import sys
import traceback
from pathlib import Path

from tasks.console import quiet_engines

quiet_engines()

from prefect import flow, get_run_logger  # noqa: E402

from alignment.config import RunConfig  # noqa: E402
from alignment.types import Artifact, Candidate, Group, Prompt, SequenceLogprobs  # noqa: E402
from flows.cli import main  # noqa: E402
from infra import artifacts  # noqa: E402
from tasks.adopt import adopt_judges, adopt_policy  # noqa: E402
from tasks.decide import Evaluation, measure_initial  # noqa: E402
from tasks.inputs import adopt_inputs  # noqa: E402
from tasks.label import label  # noqa: E402
from tasks.recipe import load_config  # noqa: E402
from tasks.report import report  # noqa: E402
from tasks.score import score  # noqa: E402
from tasks.select import select  # noqa: E402
from tasks.start import start  # noqa: E402
from tasks.steps import Place, step_task  # noqa: E402

STARTED = "the careless run has started"
SECRETS = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PREFECT_API_KEY", "DATABASE_PASSWORD")


def careless(prompt: Prompt, completion: str) -> float:
    """A reward that tells in its error what it signed in with."""
    if completion == "b":
        raise RuntimeError(f"a careless reward signed in with {os.environ['HF_TOKEN']}")
    return float(len(completion))


@step_task("careless")
def careless_step(at: Place) -> None:
    """Fails with secrets in its message, in a cause's, and in an address."""
    try:
        raise ConnectionError(f"http://user:{os.environ['DATABASE_PASSWORD']}@127.0.0.1/ does not answer")
    except ConnectionError as error:
        error.add_note("a careless note")
        raise RuntimeError("a careless step", *(os.environ[name] for name in SECRETS)) from error


@flow(name="careless")
def run(config: RunConfig) -> None:
    """As much of a round as needs no engine, on completions that are stored already."""
    get_run_logger().info(STARTED)
    start(config)
    at, here = Place.of(config, "start"), Place.of(config, "round-000")
    policy = adopt_policy(config, at=at)
    judges = adopt_judges(config, policy, None, at=at)
    inputs = adopt_inputs(config, policy, judges, at=at)
    groups = score(_completions(config, inputs.prompts), inputs.reward, policy, on=config.engine, at=here)
    measure_initial(config, policy, _evaluation(config, groups), at=at)
    batch = select(groups, config.select, seed=(0, 0), at=here, max_missing=config.max_missing)
    label(batch, config.label, at=here)  # pyright: ignore[reportArgumentType]
    report(config)
    careless_step(here)


def _completions(config: RunConfig, prompts: Artifact) -> Artifact:
    texts = ("a", "b", "cc", "ddd")
    candidates = tuple(
        Candidate(index=i, text=text, token_ids=(9, 2), finish_reason="stop") for i, text in enumerate(texts)
    )
    groups = [
        Group(prompt=prompt, prompt_ids=(1, 4), candidates=candidates)
        for prompt in artifacts.read_rows(prompts, Prompt)
    ]
    shard = artifacts.commit_shard(config.store, "completions", "stored", 0, groups, Group)
    return artifacts.commit_shards(config.store, "completions", "stored", [shard])


def _evaluation(config: RunConfig, groups: Artifact) -> Evaluation:
    rows = [
        SequenceLogprobs(prompt_id=g.prompt.id, logprobs=(-1.0,) * 4, lengths=(2,) * 4)
        for g in artifacts.read_rows(groups, Group)
    ]
    logprobs = artifacts.commit_rows(config.store, "logprobs", "stored", rows, SequenceLogprobs)
    return Evaluation(groups=groups, own=logprobs, base=logprobs)


def attempt(recipe: str, *words: str) -> None:
    try:
        run(load_config(recipe, words, shipped=Path()))
    except Exception:
        traceback.print_exc()


def command(*words: str) -> None:
    try:
        main(words)
    except SystemExit as end:
        print(f"{words[0]} ended with {end.code}")


if __name__ == "__main__":
    recipe, judge = sys.argv[1:]
    for name in ("fine", "unclear", "denied", "broken"):
        attempt(recipe, "--run", name, "--label.url", f"{judge}/{name}")
        for words in (("show", name), ("show", name, "--json"), ("report", name)):
            command(*words, "--store", "./runs")
    attempt(recipe, "--run", "away", "--store", "s3://bucket/prefix")  # an address with credentials
    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    attempt(recipe, "--run", "away", "--store", "s3://bucket/prefix")  # nobody there
    command("plan", recipe, "--label.url", f"{judge}/fine", "--store", "s3://bucket/prefix")
    command("run", recipe, "--label.url", f"{judge}/fine", "--prompts.path", "nowhere.jsonl")
