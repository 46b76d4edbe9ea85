"""Training jobs under Ray Train, from the driver's side: reported, killed, ganged, refused, overdue."""

import math
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from small_groups import small_groups

from alignment.config import Train
from alignment.errors import UserError
from alignment.execution import Engine, Trainer
from alignment.packing import TrainingGroup
from infra.launch import TrainResult, run_training
from infra.ray_pool import open_ray
from infra.train_data import StepMetrics

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]

TRAIN = Train(groups_per_step=1, epochs=60, learning_rate=3e-3)
TRAINER = Trainer(checkpoint_steps=5, threads=1)
STEPS = 180
OF_THREE = Train(groups_per_step=3, epochs=6, learning_rate=3e-3)


@pytest.fixture(scope="module")
def groups(tiny_policy: Path) -> list[TrainingGroup]:
    return small_groups(tiny_policy)


@pytest.fixture(scope="module")
def launch(tiny_policy: Path, groups: list[TrainingGroup], tmp_path_factory: pytest.TempPathFactory):
    """Runs a job in folders named for it."""
    open_ray(Engine())
    root = tmp_path_factory.mktemp("launch")

    def run(name: str, train: Train = TRAIN, trainer: Trainer = TRAINER, on=groups, on_step=lambda step: None):
        folders = {"out": root / f"{name}-out", "scratch": root / name}
        return run_training(
            tiny_policy, on, train=train, trainer=trainer, seed=5, recipe=name, on_step=on_step, **folders
        )

    run.root = root
    return run


@pytest.fixture(scope="module")
def undisturbed(launch) -> tuple[TrainResult, list[StepMetrics]]:
    heard: list[StepMetrics] = []
    return launch("undisturbed", on_step=heard.append), heard


@pytest.fixture(scope="module")
def one(undisturbed, launch) -> TrainResult:
    """Another job for the same worker."""
    return launch("one", OF_THREE)


def weights(launch, name: str) -> dict:
    return load_file(launch.root / f"{name}-out" / "model.safetensors")


def worker_pid() -> int:
    (pid,) = worker_pids()
    return pid


def worker_pids() -> list[int]:
    from ray._private import state

    actors = state.actors().values()
    return [a["Pid"] for a in actors if a["ActorClassName"] == "RayTrainWorker" and a["State"] == "ALIVE"]


def test_every_step_is_reported_once_and_in_order(undisturbed):
    result, heard = undisturbed
    assert heard == list(result.steps)
    assert [step.step for step in heard] == list(range(STEPS))


def test_training_begins_at_log_two_and_lowers_the_loss(undisturbed):
    """The reference is the policy, so the first margin is 0."""
    result, _ = undisturbed
    assert result.steps[0].loss == pytest.approx(math.log(2), abs=1e-5)
    assert result.steps[0].margin == pytest.approx(0, abs=1e-4)
    assert result.steps[-1].loss < 0.5
    assert result.probes.keys() == {"padding", "reload"}
    assert result.probes["reload"].worst <= result.probes["reload"].bound


def test_the_exported_folder_has_the_tokenizer_and_the_keys_of_the_policy(undisturbed, launch, tiny_policy):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (launch.root / "undisturbed-out" / name).read_bytes() == (tiny_policy / name).read_bytes()
    assert weights(launch, "undisturbed").keys() == load_file(tiny_policy / "model.safetensors").keys()


def test_workers_stay_for_the_next_job_and_change_no_bit_of_it(undisturbed, one, launch):
    """A process that has done other jobs gives what a fresh one gives."""
    pid = worker_pid()
    again = launch("again")
    assert worker_pid() == pid
    assert [step.loss for step in again.steps] == [step.loss for step in undisturbed[0].steps]
    ours, theirs = weights(launch, "again"), weights(launch, "undisturbed")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_a_worker_that_dies_between_jobs_or_before_it_has_begun_is_replaced(undisturbed, launch):
    """Its successor does not look for the job that is done, whose folder is gone. Ray Train counts the death of one
    that never came up as a failure of its own."""
    shutil.rmtree(launch.root / "again")
    idle = worker_pid()
    os.kill(idle, signal.SIGKILL)
    killed = threading.Event()

    def kill_the_next() -> None:
        while not (new := set(worker_pids()) - {idle}):
            time.sleep(0.01)
        os.kill(new.pop(), signal.SIGKILL)
        killed.set()

    threading.Thread(target=kill_the_next, daemon=True).start()
    result = launch("after-deaths", Train(groups_per_step=1, epochs=2))
    assert killed.is_set()
    assert len(result.steps) == 6


def test_a_killed_worker_changes_no_bit_of_the_result(undisturbed, launch):
    """kill -9 after ten steps: Ray Train starts it anew, and it goes on from the last checkpoint."""
    heard: list[StepMetrics] = []
    killed: list[int] = []

    def kill_once(step: StepMetrics) -> None:
        heard.append(step)
        if step.step == 10 and not killed:
            killed.append(worker_pid())
            os.kill(killed[0], signal.SIGKILL)

    result = launch("killed", on_step=kill_once)
    assert killed
    assert result.resumed_from >= 10
    assert [step.step for step in heard] == list(range(STEPS))
    assert [step.loss for step in result.steps] == [step.loss for step in undisturbed[0].steps]
    ours, theirs = weights(launch, "killed"), weights(launch, "undisturbed")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_a_job_past_its_deadline_ends_with_a_diagnosis(launch):
    with pytest.raises(UserError, match=r"trainer\.timeout = 2 s \(0 steps done\).*Free: CPU"):
        launch("late", trainer=TRAINER.model_copy(update={"timeout": 2.0}))


def test_two_workers_at_zero_3_train_as_one_does(one, launch):
    """Six steps of three groups, which two workers share as two and one."""
    two = launch("two", OF_THREE, TRAINER.model_copy(update={"workers": 2, "zero_stage": 3}))
    assert [s.loss for s in two.steps] == pytest.approx([s.loss for s in one.steps], abs=1e-4)
    assert [s.tokens for s in two.steps] == [s.tokens for s in one.steps]
    ours, theirs = weights(launch, "two"), weights(launch, "one")
    assert max(abs(ours[name] - theirs[name]).max() for name in theirs) < 1e-4


def test_nothing_to_train_on_is_refused(launch):
    with pytest.raises(UserError, match="no pairs to train on"):
        launch("empty", on=[])


def test_a_sequence_beyond_the_context_is_refused_by_name(launch, groups):
    """2 prompt tokens and 127 of the completion, in a context of 128."""
    long = groups[1].model_copy(update={"completions": ((5,) * 127, (6,))})
    with pytest.raises(UserError, match=r"prompt two: 129 tokens in a row, beyond the context 128"):
        launch("long", on=[groups[0], long])


def test_more_workers_than_the_cluster_holds_are_refused_with_both_numbers(launch):
    with pytest.raises(UserError, match=r"trainer\.workers = 1000 needs 1000 CPU, and the cluster has"):
        launch("many", trainer=TRAINER.model_copy(update={"workers": 1000}))
