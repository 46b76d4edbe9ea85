"""The training job on real DeepSpeed, at a tiny size: as plain pair training, at any stage, on any number of workers.

One or two processes answer all questions (``train_gang.py``); the tests look at the answers. What Ray Train adds is
in ``test_launch.py``.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_groups import small_groups

from alignment.config import Train
from alignment.execution import Trainer
from alignment.packing import TrainingGroup
from infra.ray_pool import worker_env
from infra.train_data import StepMetrics, TrainJob, append_metrics, read_job, read_metrics, rewind_metrics, write_job
from infra.train_step import learning_rate

pytestmark = [pytest.mark.engine, pytest.mark.slow]
STAGES = (0, 2, 3)
SECONDS = 600


@pytest.fixture(scope="module")
def preference_groups(tiny_policy: Path) -> list[TrainingGroup]:
    return small_groups(tiny_policy)


@pytest.fixture(scope="module")
def folder(tiny_policy: Path, preference_groups: list[TrainingGroup], tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gang")
    job = TrainJob(
        recipe="",
        policy=tiny_policy,
        out=folder / "out",
        train=Train(),
        trainer=Trainer(threads=1),
        seed=3,
        deadline=0.0,
    )
    write_job(folder, job, preference_groups)
    return folder


def answers(folder: Path, size: int) -> dict:
    """Run a gang of ``size`` processes to its end."""
    program = Path(__file__).with_name("train_gang.py")
    ranks = []
    for rank in range(size):
        settings = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_SIZE": str(size)}
        settings |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "0",
            "DS_ACCELERATOR": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
        }
        settings |= worker_env(threads=1)
        with (folder / f"log-{size}-{rank}.txt").open("w") as log:
            arguments = [sys.executable, str(program), str(folder), str(rank), str(size)]
            ranks.append(subprocess.Popen(arguments, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT))
    try:
        ended = [rank.wait(timeout=SECONDS) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert ended == [0] * size, (folder / f"log-{size}-0.txt").read_text()[-4000:]
    return json.loads((folder / f"answers-{size}.json").read_text())


@pytest.fixture(scope="module")
def one(folder: Path) -> dict:
    return answers(folder, 1)


@pytest.fixture(scope="module")
def two(folder: Path) -> dict:
    return answers(folder, 2)


@pytest.fixture(params=["one", "two"])
def gang(request: pytest.FixtureRequest) -> dict:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("stage", STAGES)
def test_group_training_has_the_gradient_of_plain_pairs(gang, stage):
    """Groups of 3, 1 and 2 pairs, one to a forward pass: the second worker of two has a pass less than the first."""
    answer = gang[f"gradient-{stage}"]
    assert answer["gradient"] < 1e-5
    assert answer["norm"] < 1e-4
    assert answer["pairs"] == 6


def test_a_worker_with_fewer_groups_adds_passes_of_weight_zero(two):
    assert two["gradient-3"]["idle_passes"] == 1


@pytest.mark.parametrize("stage", STAGES)
def test_the_first_loss_is_log_two(gang, stage):
    """The policy is its own reference, so every margin is 0."""
    assert gang[f"gradient-{stage}"]["loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("name", ["kto-0", "kto-3", "rpo-2"])
def test_a_loss_of_the_whole_step_has_plain_pairs_gradient_on_two_workers(two, name):
    """KTO's baseline and RPO's mean length are those of the six pairs, of which each worker sees some; references are
    3 nats apart, so that KTO's is not 0."""
    answer = two[name]
    assert answer["gradient"] < 1e-5
    assert answer["norm"] < 1e-4
    assert answer["loss"] == pytest.approx(answer["plain_loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["ld_dpo", "mrpo"])
def test_a_loss_that_needs_more_of_the_reference_has_plain_pairs_gradient(one, name):
    """LD-DPO's plain pairs are cut before the policy sees them; MRPO's two references are one here, which is DPO."""
    assert one[name]["gradient"] < 1e-5
    assert one[name]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert one[name]["norm"] < 1e-4


@pytest.mark.parametrize("stage", STAGES)
def test_a_restarted_job_ends_where_an_undisturbed_one_does(gang, stage):
    """Bit for bit, weights and reported losses, with one worker or two: checkpoints round nothing."""
    answer = gang[f"restart-{stage}"]
    assert answer["apart"] == 0
    assert answer["moved"] > 0.01
    assert (answer["resumed_whole"], answer["resumed_from"], answer["steps"]) == (0, 4, 6)
    assert answer["losses_equal"]


@pytest.mark.parametrize("kind", ["checkpointed", "bf16", "lora-0", "lora-3"])
def test_the_exported_model_gives_the_trainers_logprobs(one, kind):
    """Adapters are merged: the exported folder has the policy's own keys."""
    answer = one[kind]
    assert 0 <= answer["worst"] <= answer["bound"]
    assert answer["same_keys"]
    assert answer["last_loss"] < answer["first_loss"]
    assert answer["first_loss"] == pytest.approx(math.log(2), abs=1e-2 if kind == "bf16" else 1e-5)


def test_a_loss_that_is_not_finite_names_its_step_and_prompt(one):
    assert "step 0: loss is not finite" in one["nan"]
    assert "on prompts two." in one["nan"]


def test_warmup_then_linear_decay():
    """Ten steps, two of warmup: 1/2, 1, then eighths from 8/8 to 1/8."""
    train = Train(learning_rate=1.0, warmup_fraction=0.2)
    assert [learning_rate(step, 10, train) for step in (0, 1, 2, 3, 9)] == [0.5, 1.0, 1.0, 7 / 8, 1 / 8]
    assert learning_rate(0, 1, train) == 1.0


def test_a_job_survives_its_files(folder, preference_groups):
    job, groups = read_job(folder)
    assert groups == preference_groups
    assert job.trainer == Trainer(threads=1)


def test_metrics_are_read_line_by_line_and_rewound(tmp_path):
    """A half-written line belongs to the next reading; a worker that resumes at step 1 reports it again."""
    numbers = {name: 0.5 for name in StepMetrics.model_fields if name not in ("step", "steps", "pairs", "tokens")}
    steps = [StepMetrics(step=k, steps=2, pairs=1, tokens=1, **numbers) for k in range(2)]
    for step in steps:
        append_metrics(tmp_path, step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "st')
    assert read_metrics(tmp_path) == steps
    rewind_metrics(tmp_path, 1)
    assert read_metrics(tmp_path) == steps[:1]
