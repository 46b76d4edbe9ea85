"""The whole system on one page: which step follows which, on which artifact."""

from typing import assert_never

from prefect import flow

from alignment.config import RunConfig
from alignment.labeling import ByGold, ByReward, LanguageJudge
from alignment.selection import PolicyName, SeRA, needed_policies, reviews_pairs
from alignment.summary import RunSummary
from alignment.types import Artifact
from flows.calibrate import calibrate
from flows.evaluate import evaluate
from flows.references import references
from flows.refit import refitted
from tasks.adopt import adopt_judges, adopt_policy
from tasks.batches import Batch
from tasks.decide import Standing, decide, measure_initial
from tasks.generate import generate
from tasks.gold_label import label_by_gold
from tasks.inputs import Inputs, adopt_inputs
from tasks.join import join
from tasks.label import label
from tasks.labels import label_samples
from tasks.logprobs import logprobs
from tasks.merge import merge
from tasks.ranking_pairs import with_ranking_pairs
from tasks.relabel import relabel, served_at_goal
from tasks.report import report
from tasks.score import score
from tasks.select import select
from tasks.start import named_for_schedule, start
from tasks.steps import Place, planning
from tasks.train import train


@flow(name="align", flow_run_name="{config.run}")
def align(config: RunConfig) -> RunSummary:
    """Improve a policy for ``config.rounds`` rounds. Running it again after any crash goes on where it stopped."""
    config = named_for_schedule(config)
    start(config)
    at = Place.of(config, "start")
    policy = adopt_policy(config, at=at)
    labelled = label_samples(config, policy, at=at)
    judges = adopt_judges(config, policy, labelled, at=at)
    inputs = calibrate(config, policy, adopt_inputs(config, policy, judges, at=at), at=at)
    evaluation = evaluate(policy, policy, inputs, config.evaluate, seed=config.seed, on=config.engine, at=at)
    inputs, evaluation = with_ranking_pairs(inputs, evaluation, at=at)
    initial = best = measure_initial(config, policy, evaluation, at=at)

    earlier: tuple[Batch, ...] = ()
    one_round = align_round if planning.get() is None else align_round.fn
    for k in range(config.rounds):
        inputs, initial, best = refitted(config, k, inputs, initial, best)
        best, batch = one_round(config, k, inputs, initial, best, earlier)
        earlier = (*earlier, batch)
    return report(config)


@flow(name="round", flow_run_name="{config.run}-round-{k}", validate_parameters=False)
def align_round(
    config: RunConfig, k: int, inputs: Inputs, initial: Standing, best: Standing, earlier: tuple[Batch, ...]
) -> tuple[Standing, Batch]:
    """Sample, score, select, relabel, take log-probabilities, train, evaluate, decide. Every step finds its artifact
    or makes it."""
    at, seed, engine = Place.of(config, f"round-{k:03d}"), (config.seed, k), config.engine
    begin = best.policy if config.start_from == "promoted" else initial.policy
    reference = best.policy if config.reference == "previous" else initial.policy

    served = inputs if config.relabel is None else served_at_goal(inputs, config.relabel, initial.policy, at=at)

    if inputs.offline is None:
        prompts = served.prompts if best.trained else inputs.prompts
        completions = generate(best.policy, prompts, config.sampler, inputs.reward, seed=seed, on=engine, at=at)
        groups = score(completions, inputs.reward, best.policy, on=engine, at=at)
        known = known_logprobs(config, groups, initial, best, at=at)
        batch = select(groups, config.select, seed=seed, at=at, logprobs=known, max_missing=config.max_missing)
    else:
        batch = reviewed(config, inputs, inputs.offline, initial, best, seed=seed, at=at)
    match config.label:
        case ByReward():
            pass
        case LanguageJudge():
            batch = label(batch, config.label, at=at)
        case ByGold():
            batch = label_by_gold(batch, config.label, inputs.gold, best.policy, seed=seed, on=engine, at=at)
        case _:
            assert_never(config.label)
    if config.relabel is not None:
        batch = relabel(batch, config.relabel, initial.policy, initial.evaluation.groups, at=at)
    batches = (*earlier[max(0, k - config.replay.rounds) :], batch)
    second = initial.policy if config.reference == "previous" else best.policy
    against = references(config, reference, second, batches, at=at)

    policy = train(begin, reference, batches, against, config.train, seed=seed, on=config.trainer, engine=engine, at=at)
    if config.merge is not None:
        policy = merge(policy, begin, config.merge, at=at)
    evaluation = evaluate(policy, initial.policy, served, config.evaluate, seed=config.seed, on=engine, at=at)
    return decide(config, k, policy, evaluation, batch, initial, best, at=at), batch


def reviewed(
    config: RunConfig,
    inputs: Inputs,
    offline: Batch,
    initial: Standing,
    best: Standing,
    *,
    seed: tuple[int, int],
    at: Place,
) -> Batch:
    """Existing pairs, as they are or as the selector leaves them, with pairs of fresh completions where it adds some.

    SeRA reviews by what training has changed: until a policy is promoted it takes all pairs.
    """
    groups, adds = offline.groups, isinstance(config.select, SeRA)
    if not reviews_pairs(config.select) or (adds and best.policy == initial.policy):
        return offline
    if adds:
        fresh = generate(best.policy, inputs.prompts, config.sampler, (), seed=seed, on=config.engine, at=at)
        groups = join(groups, fresh, at=at)
    known = known_logprobs(config, groups, initial, best, at=at)
    return select(groups, config.select, seed=seed, at=at, logprobs=known, labelled=offline.pairs)


def known_logprobs(
    config: RunConfig, groups: Artifact, initial: Standing, best: Standing, *, at: Place
) -> dict[PolicyName, Artifact]:
    """Log-probabilities of the groups' completions under every policy that the selector needs, as far as there is one.

    The initial policy is no previous one: its implicit rewards are zero.
    """
    before = best.before if best.before != initial.policy else None
    policies: dict[PolicyName, Artifact | None] = {
        "current": best.policy, "previous": before, "initial": initial.policy
    }  # fmt: skip
    return {
        name: logprobs(policy, groups, config.train.precision, on=config.engine, at=at, step=f"logprobs-{name}")
        for name in needed_policies(config.select)
        if (policy := policies[name]) is not None
    }
