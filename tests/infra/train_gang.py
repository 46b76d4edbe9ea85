"""One worker of a training job without Ray: ``python train_gang.py FOLDER RANK SIZE``.

Runs every training question of ``test_train_job.py`` in turn, since starting a process costs more than all of them,
and leaves the answers in ``FOLDER/answers-SIZE.json``.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from alignment.config import Lora, Train
from alignment.errors import UserError
from alignment.execution import Trainer
from alignment.logprobs import completion_logprobs
from alignment.losses import DPO, KTO, LDDPO, MRPO, RPO, Loss, PairLogprobs, preference_loss
from alignment.packing import TrainingGroup, micro_batches
from infra import train_job
from infra.train_data import TrainJob, TrainOutcome, read_job, read_metrics, write_job
from infra.train_engine import Gang, load_model, open_engine, set_arithmetic

STAGES = (0, 2, 3)
BETA_1 = 0.9
UNCLIPPED = 1e9


class Ended(Exception):
    """A worker that ends in the middle."""


def plain_pair_gradients(policy: Path, groups: list[TrainingGroup], loss: Loss) -> tuple[float, dict]:
    """The mean loss over all pairs, each pair a forward pass of its own, and its gradient by parameter."""
    model = load_model(policy, Train())
    pairs = [(g, i, j) for g in groups for i, j in zip(g.chosen, g.rejected, strict=True)]
    policy_ = [completion_logprobs(model, g.prompt_ids, [g.completions[i], g.completions[j]]) for g, i, j in pairs]
    begun = [beginnings(model, g, i, j) for g, i, j in pairs]
    references = torch.tensor([(g.reference[i], g.reference[j]) for g, i, j in pairs]).T
    lp = PairLogprobs(
        *torch.stack(policy_).T,
        *references,
        shared=PairLogprobs(*torch.stack([both for both, _ in begun]).T, *torch.tensor([of for _, of in begun]).T),
        second=PairLogprobs(*torch.stack(policy_).T, *references),
        chosen_lengths=torch.tensor([len(g.completions[i]) for g, i, _ in pairs]),
        rejected_lengths=torch.tensor([len(g.completions[j]) for g, _, j in pairs]),
    )
    mean = preference_loss(loss, lp).mean()
    mean.backward()
    return mean.item(), {name: p.grad for name, p in model.named_parameters()}


def beginnings(model, group: TrainingGroup, chosen: int, rejected: int) -> tuple[torch.Tensor, list[float]]:
    """A pair's two completions cut to the shorter one's length: under the policy and under the reference, (2,) each."""
    sides = (chosen, rejected)
    length = min(len(group.completions[k]) for k in sides)
    cut = completion_logprobs(model, group.prompt_ids, [group.completions[k][:length] for k in sides])
    return cut, [sum(group.reference_tokens[k][:length]) for k in sides]


def gradient_error(policy: Path, groups: list[TrainingGroup], gang: Gang, stage: int, loss: Loss) -> dict[str, float]:
    """Group training's gradient against plain pairs', relative to the largest entry; read from Adam, whose first
    moment after one step is (1 - beta_1) times the gradient."""
    from deepspeed.utils import safe_get_full_optimizer_state

    train, trainer = Train(loss=loss, max_grad_norm=UNCLIPPED), Trainer(zero_stage=stage, workers=gang.size)
    shares = micro_batches(groups, range(len(groups)), workers=gang.size, tokens=1)
    accumulation = max(map(len, shares))
    engine = open_engine(load_model(policy, train), train, trainer, accumulation=accumulation)
    batches = [[[groups[i] for i in batch] for batch in share] for share in shares]
    metrics = train_job.train_step(engine, batches, train, gang, step=0, steps=1)
    mean, expected = plain_pair_gradients(policy, groups, loss)
    worst = 0.0
    for name, parameter in engine.module.named_parameters():
        if stage == 0:
            moment = engine.basic_optimizer.state[parameter]["exp_avg"]
        else:
            moment = safe_get_full_optimizer_state(parameter, "exp_avg")
        worst = max(worst, float((moment / (1 - BETA_1) - expected[name]).abs().max()))
    largest = max(float(g.abs().max()) for g in expected.values())
    norm = float(torch.cat([g.flatten() for g in expected.values()]).norm())
    return {
        "gradient": worst / largest,
        "norm": abs(metrics.grad_norm - norm) / norm,
        "loss": metrics.loss,
        "plain_loss": mean,
        "pairs": metrics.pairs,
        "idle_passes": sum(accumulation - len(share) for share in shares),
    }


class Bench:
    """Runs whole jobs in this gang, each in a folder of its own."""

    def __init__(self, folder: Path, gang: Gang):
        self.folder, self.gang = folder, gang
        self.given, self.groups = read_job(folder.parent)

    def job(self, name: str, train: Train, trainer: Trainer, policy: Path | None = None) -> TrainOutcome:
        scratch = self.folder / name
        out, deadline = self.folder / f"{name}-out", time.time() + 600
        changes = {"policy": policy or self.given.policy, "out": out, "train": train, "trainer": trainer}
        job = TrainJob(**{**self.given.model_dump(), **changes, "recipe": name, "deadline": deadline})
        if self.gang.rank == 0:
            write_job(scratch, job, self.groups)
        torch.distributed.barrier()
        return train_job.train_in_gang(job, self.groups, scratch, self.gang)

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        torch.distributed.barrier()
        return load_file(self.folder / f"{name}-out" / "model.safetensors")

    def apart(self, a: str, b: str) -> float:
        first, second = self.weights(a), self.weights(b)
        assert first.keys() == second.keys()
        return max(float((first[name] - second[name]).abs().max()) for name in first)

    def moved(self, name: str) -> float:
        """How far training went from the weights it began with."""
        before, after = load_file(self.given.policy / "model.safetensors"), self.weights(name)
        return max(float((before[key] - after[key]).abs().max()) for key in before)

    def ended_at(self, step: int, run: Callable[[], TrainOutcome]) -> None:
        whole = train_job.train_step

        def ending(*args, **named):
            if named["step"] == step:
                raise Ended
            return whole(*args, **named)

        train_job.train_step = ending
        try:
            run()
        except Ended:
            return
        finally:
            train_job.train_step = whole
        raise AssertionError("the job went on")


def restarts(bench: Bench, stage: int) -> dict[str, float]:
    """A job of six steps with checkpoints after two and four, ended in the fifth and run again."""
    train = Train(groups_per_step=2, epochs=3, learning_rate=1e-2)
    trainer = Trainer(zero_stage=stage, workers=bench.gang.size, checkpoint_steps=2, threads=1)
    whole = bench.job(f"whole-{stage}", train, trainer)
    bench.ended_at(4, lambda: bench.job(f"ended-{stage}", train, trainer))
    again = bench.job(f"ended-{stage}", train, trainer)
    losses = [m.loss for m in read_metrics(bench.folder / f"ended-{stage}")]
    return {
        "apart": bench.apart(f"whole-{stage}", f"ended-{stage}"),
        "moved": bench.moved(f"whole-{stage}"),
        "resumed_from": again.resumed_from,
        "resumed_whole": whole.resumed_from,
        "losses_equal": losses == [m.loss for m in read_metrics(bench.folder / f"whole-{stage}")],
        "steps": len(losses),
    }


def exports(bench: Bench, train: Train, trainer: Trainer, name: str) -> dict[str, float]:
    """What a finished job's exported model says, read back with plain transformers."""
    outcome = bench.job(name, train, trainer)
    steps = read_metrics(bench.folder / name)
    probes = {probe.name: probe for probe in outcome.probes}
    keys = bench.weights(name).keys() == load_file(bench.given.policy / "model.safetensors").keys()
    return {
        "worst": probes["reload"].worst,
        "bound": probes["reload"].bound,
        "first_loss": steps[0].loss,
        "last_loss": steps[-1].loss,
        "same_keys": keys,
    }


def not_a_number(bench: Bench) -> str:
    """A policy with one weight that is not a number, in the embedding of a token that one prompt alone has."""
    from safetensors.torch import save_file

    sick = bench.folder / "sick"
    shutil.copytree(bench.given.policy, sick)
    weights = load_file(sick / "model.safetensors")
    weights["model.embed_tokens.weight"][bench.groups[1].prompt_ids[0]] = float("nan")
    save_file(weights, sick / "model.safetensors", metadata={"format": "pt"})
    try:
        bench.job("nan", Train(groups_per_step=len(bench.groups)), Trainer(tokens_per_pass=1), policy=sick)
    except UserError as error:
        return str(error)
    return "nothing was raised"


def main(folder: Path, rank: int, size: int) -> None:
    store = torch.distributed.FileStore(str(folder / f"meet-{size}"), size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    gang = Gang(rank, size)
    given, groups = read_job(folder)
    set_arithmetic(given.trainer, 0)
    bench = Bench(folder / f"of-{size}", gang)
    answers: dict[str, object] = {}
    for stage in STAGES:
        answers[f"gradient-{stage}"] = gradient_error(given.policy, groups, gang, stage, DPO())
        answers[f"restart-{stage}"] = restarts(bench, stage)
    if size == 1:
        long = Train(groups_per_step=2, epochs=4, learning_rate=1e-2)
        answers["checkpointed"] = exports(bench, long, Trainer(gradient_checkpointing=True, threads=1), "checkpointed")
        answers["bf16"] = exports(bench, long.model_copy(update={"precision": "bf16"}), Trainer(threads=1), "bf16")
        lora = long.model_copy(update={"lora": Lora(rank=4), "learning_rate": 3e-2})
        for stage in (0, 3):
            answers[f"lora-{stage}"] = exports(bench, lora, Trainer(zero_stage=stage, threads=1), f"lora-{stage}")
        answers["nan"] = not_a_number(bench)
        for loss in (LDDPO(alpha=0.2), MRPO()):
            answers[loss.type] = gradient_error(given.policy, groups, gang, 0, loss)
    else:
        far = [g.model_copy(update={"reference": tuple(r - 3 * k for k, r in enumerate(g.reference))}) for g in groups]
        for name, loss, stage in (("kto", KTO(), 3), ("kto", KTO(), 0), ("rpo", RPO(normalise="step_token_mean"), 2)):
            answers[f"{name}-{stage}"] = gradient_error(given.policy, far, gang, stage, loss)
    if rank == 0:
        (folder / f"answers-{size}.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
