"""Held-out prompts answered, scored and measured against the initial policy."""

from alignment.config import Evaluate
from alignment.execution import Engine
from alignment.sampling import Independent
from alignment.types import Artifact
from tasks.decide import Evaluation
from tasks.generate import generate
from tasks.inputs import Inputs
from tasks.judges import digests_of
from tasks.logprobs import logprobs
from tasks.score import score
from tasks.steps import Place


def evaluate(
    policy: Artifact, initial: Artifact, inputs: Inputs, how: Evaluate, *, seed: int, on: Engine, at: Place
) -> Evaluation:
    """The same prompts and seeds for every policy of a run, so that policies are compared prompt by prompt."""
    sampler = Independent(n=how.n, decoding=how.decoding)
    judges = inputs.judges
    answers = generate(policy, inputs.held_out, sampler, judges, seed=(seed, "evaluate"), on=on, at=at, step="answers")
    groups = score(answers, judges, policy, on=on, at=at, step="answers-scored")
    own = logprobs(policy, groups, "float32", on=on, at=at, step="answers-logprobs")
    base = logprobs(initial, groups, "float32", on=on, at=at, step="answers-logprobs-initial")
    measured = Evaluation(answers=answers, groups=groups, own=own, base=base, rewards=digests_of(judges))
    if inputs.held_out_pairs is None:
        return measured
    theirs = inputs.held_out_pairs
    pairs_own = logprobs(policy, theirs.groups, "float32", on=on, at=at, step="pairs-logprobs")
    pairs_base = logprobs(initial, theirs.groups, "float32", on=on, at=at, step="pairs-logprobs-initial")
    return measured.model_copy(update={"pairs": theirs, "pairs_own": pairs_own, "pairs_base": pairs_base})
