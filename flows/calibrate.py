"""The scale of an ensemble's members, measured once on what the initial policy answers."""

from alignment.config import RunConfig
from alignment.sampling import Independent
from alignment.types import Artifact
from tasks.generate import generate
from tasks.inputs import Inputs
from tasks.judges import unmeasured
from tasks.measure_members import with_standards
from tasks.score import score
from tasks.steps import Place


def calibrate(config: RunConfig, policy: Artifact, inputs: Inputs, *, at: Place) -> Inputs:
    """The inputs with every ensemble's standards; as they were where none is open. The answers are the evaluation's."""
    members = unmeasured(inputs.judges)
    if not members:
        return inputs
    how, engine = config.evaluate, config.engine
    sampler, seed = Independent(n=how.n, decoding=how.decoding), (config.seed, "evaluate")
    answers = generate(policy, inputs.held_out, sampler, members, seed=seed, on=engine, at=at, step="answers")
    scored = score(answers, members, policy, on=engine, at=at, step="answers-members")
    return with_standards(inputs, scored, at=at)
