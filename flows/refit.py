"""Between two rounds: the reward model learns from what the standing policy writes."""

from alignment.config import RunConfig
from tasks.decide import Standing
from tasks.inputs import Inputs
from tasks.refit import fresh_samples, rescored, retrained
from tasks.steps import Place


def refitted(
    config: RunConfig, k: int, inputs: Inputs, initial: Standing, best: Standing
) -> tuple[Inputs, Standing, Standing]:
    """What round k begins with: as it was, or with another reward model that has scored both policies' answers anew, so
    that the round compares under one and the same."""
    how, promoted = config.refit, best.promotion.round if best.promotion else None
    if how is None or not how.is_due(k, promoted):
        return inputs, initial, best
    at = Place.of(config, f"round-{k:03d}")
    samples = fresh_samples(config, how, k, best.policy, at=at)
    inputs = retrained(config, inputs, samples, best.policy, at=at)
    initial = rescored(initial, inputs, config, at=at, step="refit-initial-scored")
    best = rescored(best, inputs, config, at=at, step="refit-standing-scored")
    if inputs.held_out_pairs is not None:  # of the initial policy's answers, which have other rewards now
        ranked = inputs.held_out_pairs.model_copy(update={"groups": initial.evaluation.groups})
        inputs = inputs.model_copy(update={"held_out_pairs": ranked})
    return inputs, initial, best
