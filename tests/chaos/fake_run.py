"""A whole run in a blink: the real flow, tasks and store, with fakes where tasks open engines.

What the fakes say is a function of what they are asked and of the policy's digest, as it is of real engines that repeat
themselves, and every call is kept. The reward models are verifiers, which need no engine.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import prefect
import pytest
from faults import Effects, injected

from alignment.config import RunConfig
from alignment.execution import Engine
from alignment.packing import TrainingGroup
from alignment.probes import Probe
from alignment.sampling import Drawn, Request
from alignment.summary import RunSummary
from alignment.types import Artifact, Candidate, Group, Prompt, SequenceLogprobs, digest_of
from flows.align import align
from flows.plan import finished
from infra import tables, trees
from infra.launch import TrainResult
from infra.tokenizing import byte_level
from infra.train_data import StepMetrics
from tasks import console, generate, logprobs, report, train
from tasks.recipe import parse_config

RUN = "tiny"
FOLDERS = ("start", "round-000", "round-001")
RECIPE = b"""
rounds = 2
policy.type = "pretrained"
prompts.type = "file"
reward = { type = "verifier", function = "fake_run:reward" }
gold = { type = "verifier", function = "fake_run:gold" }
sampler = { type = "independent", n = 2 }
evaluate = { held_out = 0.4, n = 1, bootstrap = 20 }
engine = { shard_prompts = 3 }
"""
PROMPTS = 10


class Call(NamedTuple):
    """Something asked of an engine: of which model, and what."""

    kind: str
    model: str
    asked: tuple[str, ...]


class Calls(list[Call]):
    """Every call of the engines, in order, and which of them stand behind which shard or record."""

    def __init__(self, alive: Callable[[], None] = lambda: None):
        super().__init__()
        self.behind: dict[str, frozenset[Call]] = {}
        """By path: what the thread that commits it had asked of engines since its last commit. Log-probabilities are
        asked for by threads that commit nothing, for the one that waits for them."""
        self._alive, self._asked = alive, threading.local()
        self._measured: list[Call] = []

    def note(self, kind: str, model: str, asked: Sequence[str]) -> None:
        self._alive()
        self.append(call := Call(kind, model, tuple(asked)))
        if kind == "logprobs":
            self._measured.append(call)
            return
        self._asked.calls = [*getattr(self._asked, "calls", ()), call]

    def before_effect(self, what: str) -> None:
        """Where one of an object's records is created, the calls so far are the work behind it."""
        if what.startswith("create objects/logprobs/"):
            self.behind[what.removeprefix("create ")] = frozenset(self._measured)
            self._measured = []
        elif what.startswith("create objects/"):
            self.behind[what.removeprefix("create ")] = frozenset(getattr(self._asked, "calls", ()))
            self._asked.calls = []


_calls = Calls()
_from_parquet = cache(tables.from_parquet)
"""The same bytes are read by hundreds of runs, and reading them is half of a run's time."""


@contextmanager
def fake_engines(effects: Effects) -> Iterator[Calls]:
    """A process of its own: with these effects on its store, and fakes for every engine that a task opens and for
    the orchestrator. Gives the calls that the fakes get."""
    global _calls
    _calls = Calls(effects.alive)
    effects.before = _calls.before_effect
    trees._verified.clear()
    with injected(effects), pytest.MonkeyPatch.context() as patch:
        for kind in (prefect.Task, prefect.Flow):
            patch.setattr(kind, "__call__", lambda self, *args, **more: self.fn(*args, **more))
        patch.setattr(report, "create_markdown_artifact", lambda **table: None)
        patch.setattr(console, "out", SimpleNamespace(is_terminal=False, print=lambda *told, **how: None))
        patch.setattr(generate, "open_samplers", _open_samplers)
        patch.setattr(logprobs, "open_training_stack", _open_training_stack)
        patch.setattr(train, "open_ray", lambda engine: None)
        patch.setattr(train, "run_training", _run_training)
        patch.setattr(tables, "from_parquet", lambda data, row_type: list(_from_parquet(data, row_type)))
        yield _calls


def drive(config: RunConfig) -> RunSummary:
    """What ``ratchet run`` does with a configuration."""
    return finished(config) or align(config)


def config_of(store: Path | str, folder: Path, *words: str) -> RunConfig:
    """The run in this store, of the policy and the prompts in ``folder``."""
    given = ("--store", str(store), "--policy.model", str(folder / "policy"), "--prompts.path", str(folder / "p.jsonl"))
    return parse_config(RECIPE, [*given, *words], where="fake", run=RUN)


def lay_out(folder: Path) -> None:
    """A policy that transformers can tokenise for, and prompts."""
    texts = [f"prompt number {i}" for i in range(PROMPTS)]
    rows = [json.dumps({"prompt": text}) + "\n" for text in texts]
    (folder / "p.jsonl").write_text("".join(rows))
    tokenizer = byte_level(texts, 300, 512)
    tokenizer.save_pretrained(folder / "policy")
    described = {"architectures": ["LlamaForCausalLM"], "vocab_size": 300, "max_position_embeddings": 512, "trained": 0}
    (folder / "policy" / "config.json").write_text(json.dumps(described))
    (folder / "policy" / "model.safetensors").write_bytes(_weights("untrained"))


def reward(prompt: Prompt, completion: str) -> float:
    _calls.note("reward", prompt.id, [completion])
    return float(completion.split()[-1])


def gold(prompt: Prompt, completion: str) -> float:
    _calls.note("gold", prompt.id, [completion])
    return float(completion.split()[-1]) / 2


class FakeSamplers:
    """Completions end with their quality: the number of trainings behind the policy, and a bit."""

    probes = ()

    def __init__(self, policy: Artifact):
        self._policy = policy
        self._trained = _described(trees.fetch_tree(policy))["trained"]

    def __call__(self, requests: Sequence[Request]) -> list[list[Candidate]]:
        _calls.note("sample", self._policy.digest, [r.prompt.id for r in requests])
        return [[self._one(r, i) for i in range(r.n)] for r in requests]

    def assembled(self, prompts: Sequence[Prompt], drawn_P: Sequence[Drawn]) -> list[Group]:
        return [
            Group(prompt=p, prompt_ids=(1, 2), candidates=d.candidates) for p, d in zip(prompts, drawn_P, strict=True)
        ]

    def _one(self, request: Request, i: int) -> Candidate:
        drawn = digest_of([self._policy.digest, request.prompt.id, request.seed + i])
        text = f"{drawn[:4]} {drawn[4:8]} {drawn[8:12]} {self._trained + int(drawn[:8], 16) / 2**32}"
        return Candidate(index=i, text=text, token_ids=tuple(text.encode()), finish_reason="stop", logprob=-1.0)


class FakeTrainingStack:
    processes = 1

    def logprobs(self, policy: Artifact, groups: Sequence[Group], *, precision: str) -> list[SequenceLogprobs]:
        _calls.note("logprobs", f"{policy.digest} {precision}", [c.text for g in groups for c in g.candidates])
        return [
            SequenceLogprobs(
                prompt_id=g.prompt.id,
                logprobs=tuple(-int(digest_of([policy.digest, c.text])[:4], 16) / 2**16 for c in g.candidates),
                lengths=tuple(len(c.token_ids) for c in g.candidates),
            )
            for g in groups
        ]


@contextmanager
def _open_samplers(engine: Engine, policy: Artifact) -> Iterator[FakeSamplers]:
    yield FakeSamplers(policy)


@contextmanager
def _open_training_stack(engine: Engine) -> Iterator[FakeTrainingStack]:
    yield FakeTrainingStack()


def _run_training(
    policy: Path, groups: Sequence[TrainingGroup], *, out: Path, scratch: Path, recipe: str, seed: int, **_: Any
) -> TrainResult:
    """The policy with other weights, and one training more behind it."""
    _calls.note("train", recipe, [g.prompt_id for g in groups])
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "checkpoint").write_text("after step 0")
    out.mkdir(parents=True, exist_ok=True)
    for file in policy.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    before = _described(policy)
    (out / "config.json").write_text(json.dumps({**before, "trained": before["trained"] + 1}))
    (out / "model.safetensors").write_bytes(_weights(recipe, seed))
    step = StepMetrics(
        step=0, steps=1, loss=0.5, accuracy=1.0, margin=1.0, chosen_drift=0.5, rejected_drift=-0.5, grad_norm=1.0,
        learning_rate=1e-4, pairs=len(groups), tokens=100, seconds=0.25,
    )  # fmt: skip
    probe = Probe(name="reload", worst=0.0, mean=0.0, bound=1e-4, count=1)
    return TrainResult(steps=(step,), probes={"reload": probe}, resumed_from=0, seconds=0.25, phases={"steps": 0.25})


def _described(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def _weights(*of: object) -> bytes:
    """A safetensors file of 32 bytes, which are a digest."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [32], "data_offsets": [0, 32]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes.fromhex(digest_of([str(part) for part in of]))
