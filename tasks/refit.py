"""The reward model retrained on what the standing policy writes, and answers scored anew by it."""

from alignment.config import RunConfig
from alignment.models import Trained
from alignment.refitting import Refit
from alignment.rewards import ScalarHead
from alignment.sampling import Independent
from alignment.types import Artifact
from alignment.worlds import Sandbox
from infra.reward_job import Labelled
from tasks.decide import Standing
from tasks.generate import generate
from tasks.inputs import Inputs
from tasks.judges import Judge, digests_of
from tasks.labels import label_prompts, world_labels
from tasks.reward_training import train_model
from tasks.score import score
from tasks.steps import Place, step_task


def fresh_samples(config: RunConfig, how: Refit, k: int, policy: Artifact, *, at: Place) -> Artifact:
    """The policy's completions of requests that no run is trained or evaluated on, and no label was asked for."""
    assert isinstance(config.world, Sandbox)  # the contracts see to it
    labelled = config.labels.prompts if config.labels else 0
    prompts = label_prompts(
        config.world, how.prompts, first=labelled + how.first_prompt(k), step="refit-prompts", at=at
    )
    sampler, seed = Independent(n=how.n, decoding=how.decoding), ("refit", config.world.seed, k)
    return generate(policy, prompts, sampler, (), seed=seed, on=config.engine, at=at, step="refit-samples")


@step_task("refit")
def retrained(config: RunConfig, inputs: Inputs, samples: Artifact, policy: Artifact, *, at: Place) -> Inputs:
    """The inputs with the reward model retrained, from its last weights, on all labels so far and the samples'."""
    (judge,) = inputs.reward
    assert isinstance(config.world, Sandbox)
    assert isinstance(judge.spec, ScalarHead)
    assert isinstance(judge.spec.model, Trained)
    pairs = world_labels(samples, config.world, None, step="refit-pairs", at=at)
    learned = (*judge.learned, Labelled(groups=samples, pairs=pairs, writer=policy))
    how, skip = judge.spec.model, config.skip_bad_rows
    model = train_model(
        judge.spec, how, judge.models["model"], learned, skip_bad_rows=skip, step="refit-model", on=config.engine, at=at
    )
    return _with(inputs, judge.model_copy(update={"models": {"model": model}, "learned": learned}))


def _with(inputs: Inputs, judge: Judge) -> Inputs:
    judges = tuple(judge if other.name == judge.name else other for other in inputs.judges)
    return inputs.model_copy(update={"judges": judges})


def rescored(standing: Standing, inputs: Inputs, config: RunConfig, *, at: Place, step: str) -> Standing:
    """A standing policy whose held-out answers have the scores of the judges there are now."""
    evaluation = standing.evaluation
    assert evaluation.answers is not None
    groups = score(evaluation.answers, inputs.judges, standing.policy, on=config.engine, at=at, step=step)
    anew = evaluation.model_copy(update={"groups": groups, "rewards": digests_of(inputs.judges)})
    return standing.model_copy(update={"evaluation": anew})
