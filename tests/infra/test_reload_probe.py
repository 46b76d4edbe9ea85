"""Probe (e): what is exported must come back as what was trained. One process stands for the gang, with plain
transformers where an engine would be; ``test_train_job`` has the real one."""

import shutil
from pathlib import Path

import pytest
import torch
from labelled_questions import thanks
from safetensors.torch import load_file, save_file
from small_groups import small_groups

from alignment.config import Lora, Train
from alignment.errors import UserError
from alignment.execution import Trainer
from alignment.probes import ProbeFailed
from infra import launch
from infra.train_data import OUTCOME, TrainJob, TrainOutcome, write_record
from infra.train_engine import Gang, load_model
from infra.train_export import export
from infra.train_probes import reload_gives_same_logprobs

WEIGHTS = "model.safetensors"
HEAD = "lm_head.weight"


class Engine:
    """As much of an engine as export and probe ask for."""

    device = torch.device("cpu")

    def __init__(self, job: TrainJob):
        self.module = load_model(job.policy, job.train)

    def zero_optimization_stage(self) -> int:
        return 0

    def __call__(self, **inputs):
        return self.module(**inputs)


@pytest.fixture
def job(tiny_policy: Path, tmp_path: Path) -> TrainJob:
    folders = {"policy": tiny_policy, "out": tmp_path / "out"}
    return TrainJob(recipe="", **folders, train=Train(), trainer=Trainer(threads=1), seed=0, deadline=0.0)


@pytest.fixture
def trained(job: TrainJob) -> Engine:
    """Every weight has moved."""
    engine = Engine(job)
    with torch.no_grad():
        for parameter in engine.module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return engine


def probed(engine: Engine, job: TrainJob):
    return reload_gives_same_logprobs(engine, job, Gang(0, 1), small_groups(job.policy))


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_what_is_exported_comes_back(trained: Engine, job: TrainJob):
    export(trained, job, Gang(0, 1))
    (probe,) = probed(trained, job)
    assert (probe.name, probe.count) == ("reload", 8)
    assert probe.worst < 1e-5


def test_the_policy_that_training_started_from_is_no_export(trained: Engine, job: TrainJob):
    shutil.copytree(job.policy, job.out)
    with pytest.raises(ProbeFailed, match=r"under the exported model where the trainer gave .* Nothing is committed"):
        probed(trained, job)


def test_one_matrix_that_was_not_gathered_fails_with_both_sides_of_every_row(trained: Engine, job: TrainJob):
    export(trained, job, Gang(0, 1))
    name = "model.layers.1.mlp.down_proj.weight"
    rewrite(job.out, lambda tensors: tensors.update({name: torch.zeros_like(tensors[name])}))
    with pytest.raises(ProbeFailed, match=r"bound 0\.0001") as failed:
        probed(trained, job)
    evidence = failed.value.evidence
    assert (evidence.probe, len(evidence.compared)) == ("reload", 8)
    assert all(row["trainer"] != row["reloaded"] for row in evidence.compared)
    assert evidence.numbers["worst"] > evidence.numbers["bound"]


def test_an_empty_tensor_is_named(trained: Engine, job: TrainJob):
    export(trained, job, Gang(0, 1))
    rewrite(job.out, lambda tensors: tensors.update({HEAD: torch.zeros(0)}))
    with pytest.raises(UserError, match=rf"1 of 21 tensors are empty, the first is {HEAD}"):
        probed(trained, job)


def test_a_tensor_that_was_left_out_is_named(trained: Engine, job: TrainJob):
    export(trained, job, Gang(0, 1))
    rewrite(job.out, lambda tensors: tensors.pop(HEAD))
    with pytest.raises(UserError, match=rf"do not fit the model's configuration: .*{HEAD}"):
        probed(trained, job)


def test_adapters_that_were_not_merged_fail(job: TrainJob):
    """A folder that has the base model's weights where training moved only the adapters."""
    how = job.model_copy(update={"train": Train(lora=Lora(rank=2))})
    engine = Engine(how)
    with torch.no_grad():
        for name, parameter in engine.module.named_parameters():
            if "lora_B" in name:
                parameter += 0.5
    export(engine, how, Gang(0, 1))
    (probe,) = probed(engine, how)
    assert probe.worst < 1e-4
    shutil.copyfile(job.policy / WEIGHTS, job.out / WEIGHTS)
    with pytest.raises(ProbeFailed):
        probed(engine, how)


def test_the_driver_raises_what_the_worker_found_with_its_evidence(trained: Engine, job: TrainJob, tmp_path: Path):
    shutil.copytree(job.policy, job.out)
    with pytest.raises(ProbeFailed) as there:
        probed(trained, job)
    write_record(tmp_path / OUTCOME, TrainOutcome(error=str(there.value), evidence=there.value.evidence))
    with pytest.raises(ProbeFailed) as here:
        launch._outcome(tmp_path, None, job)
    assert str(here.value) == str(there.value)
    assert here.value.evidence == there.value.evidence


def test_a_reward_model_that_was_saved_without_its_head_fails(tiny_policy: Path, tmp_path: Path):
    """transformers makes the head anew, and says so only in a log."""
    from infra.reward_learning import reload_probe
    from infra.reward_objectives import save, scalar_head

    objective, questions = scalar_head(tiny_policy, "cpu"), thanks(tiny_policy, 4)
    save(objective, tiny_policy, tmp_path)
    assert reload_probe(objective, scalar_head(tmp_path, "cpu"), questions, "m").worst == 0.0
    rewrite(tmp_path, lambda tensors: tensors.pop("score.weight"))
    with pytest.raises(ProbeFailed, match=r"row .* under the exported model"):
        reload_probe(objective, scalar_head(tmp_path, "cpu"), questions, "m")


def test_a_model_from_scratch_that_does_not_come_back_fails(tiny_policy: Path, tmp_path: Path, monkeypatch):
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from alignment.logprobs import Row, row_logprobs
    from infra.scratch import save

    model = LlamaForCausalLM.from_pretrained(tiny_policy)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_policy)
    rows = [Row((5,), (6, 7, 8)), Row((9,), (10, 2))]
    assert save(model, tokenizer, tmp_path, lambda m: row_logprobs(m, rows), rows).worst == 0.0
    whole = LlamaForCausalLM.save_pretrained

    def mixed_up(self, folder) -> None:
        whole(self, folder)
        rewrite(folder, lambda tensors: tensors.update({HEAD: tensors[HEAD].flip(0).contiguous()}))

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", mixed_up)
    with pytest.raises(ProbeFailed, match="the LlamaForCausalLM trained here"):
        save(model, tokenizer, tmp_path, lambda m: row_logprobs(m, rows), rows)
