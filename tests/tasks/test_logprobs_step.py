"""Log-probabilities as a step: several processes measure shards side by side, and the rows stay in the groups' order.

The store is real; in place of engines stand threads that finish in an order of the test's choosing.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.execution import Engine
from alignment.types import Artifact, Candidate, Group, Message, Prompt, SequenceLogprobs
from infra import artifacts
from tasks import logprobs as step
from tasks.steps import Place

logprobs = step.logprobs.__wrapped__
PROMPTS = [Prompt.of((Message(role="user", content=f"prompt {i}"),)) for i in range(8)]


class TwoProcesses:
    """Each of the first two shards waits until both are under way; the first then ends after the second."""

    processes = 2

    def __init__(self) -> None:
        self.both = threading.Barrier(2)
        self.second_is_done = threading.Event()
        self.measured: list[str] = []

    def logprobs(self, policy: Artifact, groups: Sequence[Group], *, precision: str) -> list[SequenceLogprobs]:
        first = groups[0].prompt.id
        if first in (PROMPTS[0].id, PROMPTS[2].id):
            self.both.wait(timeout=30)
        if first == PROMPTS[0].id:
            assert self.second_is_done.wait(timeout=30)
        self.measured += [g.prompt.id for g in groups]
        if first == PROMPTS[2].id:
            self.second_is_done.set()
        return [
            SequenceLogprobs(prompt_id=g.prompt.id, logprobs=(-float(PROMPTS.index(g.prompt)),), lengths=(1,))
            for g in groups
        ]


class Failing(TwoProcesses):
    processes = 1

    def logprobs(self, policy: Artifact, groups: Sequence[Group], *, precision: str) -> list[SequenceLogprobs]:
        if self.measured:
            time.sleep(1)  # time to be told
        self.measured += [g.prompt.id for g in groups]
        raise UserError("mend this")


def measured_by(stack: TwoProcesses, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    @contextmanager
    def opened(engine: Engine) -> Iterator[TwoProcesses]:
        yield stack

    monkeypatch.setattr(step, "open_training_stack", opened)
    one = Candidate(index=0, text="a", token_ids=(1,), finish_reason="stop")
    rows = [Group(prompt=prompt, prompt_ids=(1,), candidates=(one,)) for prompt in PROMPTS]
    store = str(folder / "runs")
    groups = artifacts.commit_rows(store, "groups", artifacts.recipe_of("groups"), rows, Group)
    at = Place(store=store, run="r", folder="round-000")
    return logprobs(groups, groups, "float32", on=Engine(shard_prompts=2, replicas=2), at=at)


def test_shards_are_measured_side_by_side_and_kept_in_order(tmp_path, monkeypatch):
    stack = TwoProcesses()
    artifact = measured_by(stack, tmp_path, monkeypatch)
    assert stack.measured != [p.id for p in PROMPTS], "the first shard was to end after the second"
    rows = list(artifacts.read_rows(artifact, SequenceLogprobs))
    assert [row.prompt_id for row in rows] == [p.id for p in PROMPTS]
    assert [row.logprobs for row in rows] == [(-float(i),) for i in range(8)]


def test_after_an_error_the_shards_that_have_not_begun_are_not_begun(tmp_path, monkeypatch):
    stack = Failing()
    with pytest.raises(UserError, match="mend this"):
        measured_by(stack, tmp_path, monkeypatch)
    assert len(stack.measured) < len(PROMPTS)
