"""A refit between two rounds, with the engines in this process: what is trained on what, and who scores whom."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignment.config import RunConfig
from alignment.models import Pretrained
from alignment.rendering import completion_ids, load_tokenizer, render
from alignment.selection import BestWorst
from alignment.testbed import sandbox
from alignment.types import Artifact, Candidate, Group, Message, PreferencePair, Prompt, RoundManifest
from alignment.worlds import Sandbox
from flows import refit
from flows.refit import refitted
from infra import artifacts, models, reward_job
from infra.artifacts import Promotion
from infra.model_actor import ModelActor
from infra.reward_job import Labelled
from infra.scoring import Scorers
from tasks import refit as tasks_refit
from tasks import score
from tasks.batches import Batch
from tasks.decide import Evaluation, Standing, _metrics, _slope
from tasks.inputs import Inputs
from tasks.judges import Judge
from tasks.labels import label_prompts, world_labels
from tasks.start import identity
from tasks.steps import Place

WORLD = Sandbox(label_noise=0.05)


class Numbers:
    """The training stack's numbers, in this process."""

    def __init__(self) -> None:
        self.actor = ModelActor(threads=1, gpu=False)

    def scores(self, model: Any, sequences: Sequence[Any], *, batch_size: int | None = None) -> list[float]:
        return self.actor.scores(model, sequences, batch_size=batch_size or 8)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": "r",
            "store": str(tmp_path / "runs"),
            "policy": "m",
            "world": WORLD,
            "prompts": {"type": "world"},
            "reward": {"type": "scalar_head", "model": {"type": "trained", "examples": 20, "learning_rate": 1e-3}},
            "refit": {"prompts": 12},
        }
    )


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is trained is trained here, what is scored is scored here; the list has what was trained."""
    ran: list[str] = []

    def call(job: Callable[..., Artifact], work: tuple[Any, ...], on: object, advance: object, what: str, *, gpu: bool):
        ran.append(what)
        (folder := tmp_path / f"job-{len(ran)}").mkdir()
        return job(*work, folder, advance)

    @contextmanager
    def scorers(on: object, rewards: Any, *, policy: Artifact, seed: tuple[str, ...]) -> Iterator[Scorers]:
        yield Scorers(Numbers(), rewards, policy=artifacts.fetch_tree(policy), seed=seed)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(reward_job, "in_worker", call)
    monkeypatch.setattr(score, "open_scorers", scorers)
    monkeypatch.setattr(refit, "retrained", tasks_refit.retrained.__wrapped__)
    monkeypatch.setattr(tasks_refit, "score", score.score.__wrapped__)
    return ran


def completions(store: str, folder: Path, name: str, numbers: Sequence[int]) -> Artifact:
    """Answers to short requests that mean what the sandbox's mean, as one shard."""
    tokenizer, briefs = load_tokenizer(folder), sandbox.label_prompts(WORLD, max(numbers) + 1)
    groups = []
    for i in numbers:
        prompt = Prompt.of((Message(role="user", content=f"{name} {i}"),), metadata=briefs[i].metadata)
        texts = ("Hello.", f"Hello {prompt.metadata['name']}. Take care.")
        candidates = tuple(
            Candidate(index=k, text=text, token_ids=completion_ids(tokenizer, prompt, text), finish_reason="stop")
            for k, text in enumerate(texts)
        )
        groups.append(Group(prompt=prompt, prompt_ids=render(tokenizer, prompt), candidates=candidates))
    recipe = artifacts.recipe_of("completions", name=name)
    shard = artifacts.commit_shard(store, "completions", recipe, 0, groups, Group)
    return artifacts.commit_shards(store, "completions", recipe, [shard])


@pytest.fixture
def begun(config: RunConfig, tiny_policy: Path, tiny_reward_model: Path, in_this_process: list[str]):
    """(inputs, initial, best): a run whose round 0 was promoted, with a reward model that learnt from 12 labels."""
    artifacts.claim_run(config.store, "r", identity(config))
    at = Place.of(config, "start")
    policy = models.adopt_model(config.store, Pretrained(model=str(tiny_policy)), "policy")
    reward = models.adopt_model(config.store, Pretrained(model=str(tiny_reward_model)), "reward_model")
    samples = completions(config.store, tiny_policy, "old", range(12))
    labelled = Labelled(groups=samples, pairs=world_labels(samples, WORLD, 12, step="pairs", at=at), writer=policy)
    assert config.reward is not None
    judge = Judge(name="reward", spec=config.reward, models={"model": reward}, learned=(labelled,))

    def standing(name: str) -> Standing:
        answers = completions(config.store, tiny_policy, name, range(4))
        groups = score.score.__wrapped__(answers, (judge,), policy, on=config.engine, at=at, step=f"{name}-scored")
        evaluation = Evaluation(answers=answers, groups=groups, own=policy, base=policy, rewards=judge.digests)
        return Standing(policy=policy, evaluation=evaluation)

    initial = standing("initial")
    best = standing("best").model_copy(update={"promotion": Promotion(artifact=policy, round=0)})
    answered = list(artifacts.read_rows(initial.evaluation.groups, Group))
    pairs = BestWorst()(answered, np.random.default_rng(0), reward="reward").pairs
    recipe = artifacts.recipe_of("pairs", name="ranked")
    ranked = artifacts.commit_rows(config.store, "pairs", recipe, pairs, PreferencePair)
    batch = Batch(name="ranking-pairs", groups=initial.evaluation.groups, pairs=ranked)
    return Inputs(prompts=samples, held_out=samples, judges=(judge,), held_out_pairs=batch), initial, best


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch, config: RunConfig, tiny_policy: Path) -> None:
    fresh = completions(config.store, tiny_policy, "fresh", range(12, 24))
    monkeypatch.setattr(refit, "fresh_samples", lambda *_, **__: fresh)


@pytest.mark.usefixtures("sampled")
def test_the_reward_model_goes_on_from_its_weights_on_old_and_new_labels(config, begun, in_this_process):
    inputs, initial, best = begun
    anew, *_ = refitted(config, 1, inputs, initial, best)
    (before,), (after,) = inputs.reward, anew.reward
    model = after.models["model"]
    assert f"reward_model/{before.models['model'].recipe}" in model.parents
    assert len(after.learned) == 2
    assert model.facts["pairs"] + model.facts["held_out_pairs"] == 24
    assert len(in_this_process) == 1
    again, *_ = refitted(config, 1, inputs, initial, best)
    assert again == anew
    assert len(in_this_process) == 1


@pytest.mark.usefixtures("sampled")
def test_both_policies_and_the_ranked_pairs_are_scored_by_the_new_model_alone(config, begun):
    inputs, initial, best = begun
    anew, initial_anew, best_anew = refitted(config, 1, inputs, initial, best)
    (judge,) = anew.reward
    assert judge.digests == {"reward.model": judge.models["model"].digest} != inputs.reward[0].digests
    assert initial_anew.evaluation.rewards == best_anew.evaluation.rewards == judge.digests
    for old, new in ((initial, initial_anew), (best, best_anew)):
        was, now = (list(artifacts.read_rows(s.evaluation.groups, Group)) for s in (old, new))
        assert [g.candidates for g in was] == [g.candidates for g in now]
        assert [g.rewards for g in was] != [g.rewards for g in now]
    assert anew.held_out_pairs is not None
    assert anew.held_out_pairs.groups == initial_anew.evaluation.groups
    assert anew.held_out_pairs.pairs == inputs.held_out_pairs.pairs


@pytest.mark.usefixtures("sampled")
def test_policies_scored_by_two_reward_models_are_never_compared(config, begun):
    inputs, initial, best = begun
    _, _, best_anew = refitted(config, 1, inputs, initial, best)
    with pytest.raises(ValueError, match="no comparison"):
        _metrics(config, best_anew, best)


def test_without_a_promotion_nothing_changes(config, begun, in_this_process):
    inputs, initial, _ = begun
    assert refitted(config, 1, inputs, initial, initial) == (inputs, initial, initial)
    assert refitted(config, 0, inputs, initial, initial) == (inputs, initial, initial)
    assert in_this_process == []


def test_fresh_requests_follow_those_that_were_asked_before(config, begun, monkeypatch):
    """Five requests were labelled at the start, twelve before round 1, twelve before round 2."""
    _, initial, _ = begun
    labelled = RunConfig.model_validate({**config.model_dump(), "labels": {"prompts": 5}})
    monkeypatch.setattr(tasks_refit, "label_prompts", label_prompts.__wrapped__)
    monkeypatch.setattr(tasks_refit, "generate", lambda policy, prompts, *_, **__: prompts)
    requests = sandbox.label_prompts(WORLD, 29)
    for k, expected in ((1, requests[5:17]), (2, requests[17:29])):
        at = Place.of(config, f"round-{k:03d}")
        asked = tasks_refit.fresh_samples(labelled, labelled.refit, k, initial.policy, at=at)
        assert list(artifacts.read_rows(asked, Prompt)) == expected


def test_there_is_no_slope_over_two_scales():
    """The reward rose by 2 sd over gold in one round; under another reward model that means nothing."""
    start = {"reward_mean": 1.0, "gold_mean": 1.0, "reward_sd": 1.0, "gold_sd": 1.0}
    policy = Artifact(kind="policy", uri="s/objects/policy/x", recipe="x", digest="d")
    before = RoundManifest(
        round=-1, verdict="promoted", reasons=(), policy=policy, evaluation=policy, metrics=start,
        rewards={"reward.model": "a"},
    )  # fmt: skip
    now = {"reward_mean": 3.0, "gold_mean": 1.0}
    assert _slope([before], now, {"reward.model": "a"}) == pytest.approx(2.0)
    assert _slope([before], now, {"reward.model": "b"}) is None
