"""What rewards, labels and the world must have of each other, each refusal with both values and the way out."""

from collections.abc import Iterator, Mapping

from alignment.gate import Gate
from alignment.labeling import ByGold, Labeler
from alignment.models import Trained
from alignment.refitting import Refit
from alignment.rewards import RewardModel, ScalarHead, trained_models
from alignment.worlds import Sandbox, World


def reward_problems(
    rewards: Mapping[str, RewardModel | None], label: Labeler, world: World | None, *, labels: bool, held_out: float
) -> Iterator[str]:
    """``rewards`` by the field that sets them; ``labels`` is whether label samples are asked for, ``held_out`` the
    share of prompts that policies are evaluated on."""
    if labels and not isinstance(world, Sandbox):
        yield "labels is set, but only the sandbox can label what a policy writes: set world.type = 'sandbox'"
    if isinstance(label, ByGold) and rewards["gold"] is None:
        yield "label.type = 'gold' but there is no gold reward: set gold, or label.type = 'by_reward'"
    for name, reward in rewards.items():
        for path, model in trained_models(reward, name) if reward is not None else ():
            yield from _trained_problems(path, model, world, held_out)


def _trained_problems(path: str, model: Trained, world: World | None, held_out: float) -> Iterator[str]:
    if model.pairs is not None:
        if model.held_out < held_out:
            yield (
                f"{path}.held_out = {model.held_out:g} is less than evaluate.held_out = {held_out:g}: the reward model "
                "would be trained on prompts that policies are evaluated on; raise one or lower the other"
            )
    elif not isinstance(world, Sandbox):
        yield f"{path}.pairs is missing, and only the sandbox labels pairs itself: give a file, or set world.type"
    elif model.examples is None:
        yield f"{path}.examples is missing: the sandbox labels as many pairs as it is asked for; say how many"


def refit_problems(
    refit: Refit, reward: RewardModel | None, world: World | None, gate: Gate, *, rounds: int, relabels: bool
) -> Iterator[str]:
    """What a refit of the reward model cannot go with."""
    if not (isinstance(reward, ScalarHead) and isinstance(reward.model, Trained)):
        yield (
            "refit retrains the reward model that the run trained: set reward.type = 'scalar_head' with "
            "reward.model.type = 'trained'"
        )
    if not isinstance(world, Sandbox):
        yield "refit has nobody to label what the policy writes: set world.type = 'sandbox', or leave refit out"
    if not refit.possible(0, rounds):
        yield f"refit.every = {refit.every} with rounds = {rounds}: no refit comes before the last round; change one"
    if relabels:
        yield "relabel with refit: a goal is a score, and after a refit another one is meant; leave one of them out"
    if gate.max_hacking_slope is not None:
        yield (
            f"gate.max_hacking_slope = {gate.max_hacking_slope:g} with refit: rewards of different rounds are on "
            "different scales, so there is no slope; leave one of them out"
        )
