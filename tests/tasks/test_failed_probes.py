"""A probe that fails ends its step, and what it compared stays in the run for people to look at."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from padded_models import InProcess, last_position_reader
from rich.console import Console

from alignment.models import Pretrained
from alignment.probes import ProbeFailed
from alignment.rewards import ScalarHead
from alignment.types import Artifact, Candidate, Group, Message, Prompt
from infra import artifacts, storage
from infra.scoring import Scorers
from tasks import inputs
from tasks import score as step
from tasks.history import failed_probes, read_run, read_steps
from tasks.judges import Judge
from tasks.recipe import parse_config
from tasks.report_data import report_data
from tasks.report_page import render_report
from tasks.show import show_text
from tasks.start import identity
from tasks.steps import Place

RECIPE = b"""
policy = "m"
prompts = { type = "file", path = "p.jsonl" }
reward = { type = "scalar_head", model = "r" }
"""
score = step.score.__wrapped__


@pytest.fixture
def at(tmp_path: Path) -> Place:
    place = Place(store=str(tmp_path / "runs"), run="r", folder="round-000")
    artifacts.claim_run(place.store, "r", identity(parse_config(RECIPE, [], where="r", run="r")))
    return place


@pytest.fixture
def completions(at: Place) -> Artifact:
    candidates = tuple(
        Candidate(index=i, text=text, token_ids=(), finish_reason="stop") for i, text in enumerate(("a", "b" * 20))
    )
    prompt = Prompt.of((Message(role="user", content="Hi"),))
    groups = [Group(prompt=prompt, prompt_ids=(), candidates=candidates)]
    shard = artifacts.commit_shard(at.store, "completions", "c1", 0, groups, Group)
    return artifacts.commit_shards(at.store, "completions", "c1", [shard])


@pytest.fixture
def judge(tiny_reward_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Judges by model folder, which are asked in this process."""

    @contextmanager
    def open_here(on, rewards, *, policy, seed) -> Iterator[Scorers]:
        yield Scorers(InProcess(), rewards, policy=None, seed=seed)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(step, "open_scorers", open_here)
    folders = {"sound": tiny_reward_model, "padded": last_position_reader(tmp_path / "xlnet", tiny_reward_model)}

    def made(store: str, name: str) -> Judge:
        model = artifacts.commit_tree(store, "reward_model", name, folders[name])
        return Judge(name="reward", spec=ScalarHead(model=Pretrained(model="r")), models={"model": model})

    return made


def told(at: Place) -> str:
    console = Console(width=4000, file=StringIO(), record=True)
    console.print(show_text(read_run(at.store, at.run), failed_probes(at.store, at.run)))
    return console.export_text()


def test_a_step_whose_probe_fails_makes_nothing_and_leaves_the_evidence(at: Place, completions: Artifact, judge):
    with pytest.raises(ProbeFailed) as failed:
        score(completions, [judge(at.store, "padded")], completions, on=step.Engine(), at=at)
    (kept,) = failed_probes(at.store, at.run)
    assert str(failed.value) == f"{kept.evidence.said}. What was compared is in {at.store}/{kept.path}"
    assert (kept.folder, kept.step, kept.mended) == ("round-000", "score", False)
    found = json.loads(storage.read_bytes(at.store, kept.path))
    assert found["probe"] == "scores reward"
    assert {f"{found['numbers'][side]:.6f}" in found["said"] for side in ("one", "other")} == {True}
    assert [set(row) for row in found["compared"]] == [{"first", "second", "alone", "in_a_batch"}] * 4
    assert read_steps(at) == {}
    assert storage.folders(at.store, "objects/groups") == []


def test_the_same_failure_again_is_one_piece_of_evidence(at: Place, completions: Artifact, judge):
    padded = judge(at.store, "padded")
    for _ in range(2):
        with pytest.raises(ProbeFailed):
            score(completions, [padded], completions, on=step.Engine(), at=at)
    assert len(failed_probes(at.store, at.run)) == 1


def test_show_and_report_tell_of_it_and_that_it_was_mended(at: Place, completions: Artifact, judge):
    with pytest.raises(ProbeFailed):
        score(completions, [judge(at.store, "padded")], completions, on=step.Engine(), at=at)
    (kept,) = failed_probes(at.store, at.run)
    assert f"round-000 score failed a probe: {kept.evidence.said}. What was compared: {kept.path}" in told(at)
    (row,) = report_data(at.store, at.run).probes
    assert (row.round, row.name, row.passed) == (0, "score: scores reward", False)
    assert kept.path in render_report(report_data(at.store, at.run))

    score(completions, [judge(at.store, "sound")], completions, on=step.Engine(), at=at)
    assert "round-000 score failed a probe and was made later" in told(at)
    passed = {row.name: (row.passed, "made later" in row.note) for row in report_data(at.store, at.run).probes}
    assert passed == {"score: reward": (True, False), "score: scores reward": (False, True)}


def test_a_template_that_parts_prompt_from_answer_fails_its_step_with_both_renders(at: Place, tiny_policy: Path):
    """Its prompt opens a block of thoughts that the whole conversation does not have."""
    config = parse_config(RECIPE, ["--store", at.store], where="r", run="r")
    policy = artifacts.commit_tree(at.store, "policy", "p1", thinking(tiny_policy, at))
    prompts = [Prompt.of((Message(role="user", content="Say yes."),))]
    with pytest.raises(ProbeFailed, match=r"no prefix of the whole .*'<think>'.* What was compared is in"):
        inputs._prompts(config, policy, prompts, "prompts", (), at)
    (kept,) = failed_probes(at.store, at.run)
    assert (kept.step, kept.evidence.probe) == ("prompts", "template")
    prompt, whole = kept.evidence.compared
    assert prompt["text"] == "<bos><|user|>Say yes.<|assistant|><think>"
    assert whole["text"] == "<bos><|user|>Say yes.<|assistant|>A plain sentence<eos>"
    assert prompt["token_ids"][:5] == whole["token_ids"][:5]


def thinking(policy: Path, at: Place) -> Path:
    folder = Path(shutil.copytree(policy, Path(at.store).parent / "thinking"))
    template = folder / "chat_template.jinja"
    template.write_text(
        template.read_text().replace("'<|assistant|>' }}{% endif %}", "'<|assistant|><think>' }}{% endif %}")
    )
    return folder


def test_every_order_of_turns_is_looked_at(at: Place, tiny_policy: Path):
    """The template takes a lone question, and goes astray where the system speaks first."""
    config = parse_config(RECIPE, ["--store", at.store], where="r", run="r")
    folder = thinking(tiny_policy, at)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|assistant|><think>' }}", "<|assistant|>' + hint }}"))
    hint = "{% set hint = '<think>' if messages[0]['role'] == 'system' else '' %}"
    template.write_text(hint + template.read_text())
    policy = artifacts.commit_tree(at.store, "policy", "p1", folder)
    alone = Prompt.of((Message(role="user", content="Say yes."),))
    led = Prompt.of((Message(role="system", content="Be brief."), Message(role="user", content="Say yes.")))
    inputs._prompts(config, policy, [alone], "prompts", (), at)
    with pytest.raises(ProbeFailed, match="no prefix of the whole"):
        inputs._prompts(config, policy, [alone, alone, led], "held-out", (), at)
