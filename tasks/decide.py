"""Measure a new policy against the last promoted one, and promote it only if it is better."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from alignment.config import RunConfig
from alignment.evaluation import evaluation_metrics, gains_since, pair_accuracy
from alignment.metrics import hacking_slope
from alignment.ranking import ranking_metrics
from alignment.types import Artifact, Group, PreferencePair, Record, RoundManifest, SequenceLogprobs
from infra import artifacts
from infra.artifacts import Promotion
from tasks import console
from tasks.batches import Batch
from tasks.history import read_manifest, read_manifests, round_costs, round_probes, write_manifest
from tasks.steps import Place, planning, step_task

Row = TypeVar("Row", bound=Record)


class Evaluation(Record):
    """What measuring one policy left in the store."""

    groups: Artifact
    """Held-out answers with the scores of every judge."""
    answers: Artifact | None = None
    """The same without scores, for another judge to score."""
    rewards: Mapping[str, str] = {}
    """Digest of every model and verifier that scored them, by place."""
    own: Artifact
    """Their log-probabilities under the policy that gave them."""
    base: Artifact
    """The same under the initial policy."""
    pairs: Batch | None = None
    pairs_own: Artifact | None = None
    pairs_base: Artifact | None = None


class Standing(Record):
    """A policy and its evaluation."""

    policy: Artifact
    evaluation: Evaluation
    promotion: Promotion | None = None
    """None for the policy the run began with."""
    before: Artifact | None = None
    """The policy that stood until this one was promoted; None for the policy the run began with."""

    @property
    def trained(self) -> bool:
        """By this run."""
        return self.promotion is not None


@step_task("measure-initial")
def measure_initial(config: RunConfig, policy: Artifact, evaluation: Evaluation, *, at: Place) -> Standing:
    """Record the metrics of the policy the run begins with, which stands until a better one comes."""
    standing = Standing(policy=policy, evaluation=evaluation)
    if planning.get() is None and read_manifest(at) is None:
        manifest = RoundManifest(
            round=-1,
            verdict="promoted",
            reasons=("the policy the run began with",),
            policy=policy,
            evaluation=evaluation.groups,
            metrics=_metrics(config, standing, None),
            rewards=evaluation.rewards,
            probes=round_probes(at),
        )
        write_manifest(at, manifest)
    return standing


@step_task("decide")
def decide(
    config: RunConfig,
    k: int,
    policy: Artifact,
    evaluation: Evaluation,
    batch: Batch,
    initial: Standing,
    best: Standing,
    *,
    at: Place,
) -> Standing:
    """The standing policy after round k: the new one when the gate promotes it, else the one that stood before.

    A verdict is given once: a run that is started again finds it, and repeats a promotion that it did not finish.
    """
    new = Standing(policy=policy, evaluation=evaluation)
    manifest = read_manifest(at) or _judge(config, k, new, batch, initial, best, at)
    if planning.get() is None:
        console.verdict(at.folder, manifest)
    if manifest.verdict == "rejected":
        return best
    if planning.get() is None:
        promotion = artifacts.promote(at.store, at.run, policy, k, expected=best.promotion)
    else:  # later rounds ask whether and when the standing policy was promoted
        promotion = artifacts.Promotion.after(best.promotion, policy, k)
    return new.model_copy(update={"promotion": promotion, "before": best.policy})


def _judge(
    config: RunConfig, k: int, new: Standing, batch: Batch, initial: Standing, best: Standing, at: Place
) -> RoundManifest:
    metrics = _metrics(config, new, best) | _gains(config, new, initial) | round_costs(at) | _counts(batch)
    planned = planning.get() is not None  # then the run may not exist yet, and nothing is written down
    earlier = [] if planned else read_manifests(config.store, config.run, before=k)
    metrics["hacking_slope"] = _slope(earlier, metrics, new.evaluation.rewards)
    verdict = config.gate(metrics)
    manifest = RoundManifest(
        round=k,
        verdict="promoted" if verdict.promoted else "rejected",
        reasons=verdict.reasons,
        policy=new.policy,
        evaluation=new.evaluation.groups,
        metrics=metrics,
        rewards=new.evaluation.rewards,
        probes=round_probes(at),
    )
    return manifest if planned else write_manifest(at, manifest)


def _counts(batch: Batch) -> dict[str, float | None]:
    """Pairs and what was dropped, and whatever else the selector measured, as ``select_...``."""
    pairs, dropped = batch.pairs.facts.get("pairs"), batch.pairs.facts.get("dropped")
    # a judge's or a relabeller's pairs have measures of their own, which are not the selector's
    measured = batch.pairs.facts.get("metrics") if "selector" in batch.pairs.facts else None
    found = measured if isinstance(measured, dict) else {}
    selected = {f"select_{name}": float(v) for name, v in found.items() if isinstance(v, int | float)}
    return {
        **selected,
        "pairs": float(pairs) if isinstance(pairs, int) else None,
        "dropped": float(len(dropped)) if isinstance(dropped, list) else None,
        **_goals(batch),
    }


def _goals(batch: Batch) -> dict[str, float | None]:
    """Where the goals lie that the round was trained on, beside the one its policy is served at."""
    measured = batch.pairs.facts.get("metrics")
    names = measured if isinstance(measured, dict) else {}
    return {name: float(value) for name, value in names.items()
            if name.startswith("goal_") and isinstance(value, int | float)}  # fmt: skip


def _metrics(config: RunConfig, new: Standing, best: Standing | None) -> dict[str, float | None]:
    """The held-out metrics of ``new``; comparisons with ``best`` are None where there is none. ValueError where the two
    were not scored by the same models: a win would be a difference of scales."""
    if best is not None and best.evaluation.rewards != new.evaluation.rewards:
        raise ValueError(f"scored by {new.evaluation.rewards} and by {best.evaluation.rewards}: no comparison")
    rng = np.random.default_rng((config.seed, 1))  # one set of resamples for every round, so that rounds compare
    resamples = config.evaluate.bootstrap
    metrics = evaluation_metrics(
        _rows(new.evaluation.groups, Group),
        _rows(best.evaluation.groups, Group) if best else None,
        reward="reward" if config.reward else None,
        gold="gold" if config.gold else None,
        policy_logprobs=_rows(new.evaluation.own, SequenceLogprobs),
        initial_logprobs=_rows(new.evaluation.base, SequenceLogprobs),
        rng=rng,
        resamples=resamples,
    )
    held_out = new.evaluation
    if held_out.pairs is None or held_out.pairs_own is None or held_out.pairs_base is None:
        return metrics
    own, base = (_rows(a, SequenceLogprobs) for a in (held_out.pairs_own, held_out.pairs_base))
    pairs = _rows(held_out.pairs.pairs, PreferencePair)
    ranked = ranking_metrics(
        pairs,
        _rows(held_out.pairs.groups, Group),
        own,
        base,
        reward="reward" if config.reward else None,
        rng=rng,
        resamples=resamples,
    )
    return metrics | pair_accuracy(pairs, own, base, rng=rng, resamples=resamples) | ranked


def _gains(config: RunConfig, new: Standing, initial: Standing) -> dict[str, float | None]:
    """Over the initial policy. Of two that were not scored by the same models there is no difference."""
    same = initial.evaluation.rewards == new.evaluation.rewards
    return gains_since(
        _rows(new.evaluation.groups, Group),
        _rows(initial.evaluation.groups, Group) if same else [],
        reward="reward" if config.reward else None,
        gold="gold" if config.gold else None,
        rng=np.random.default_rng((config.seed, 2)),
        resamples=config.evaluate.bootstrap,
    )


def _slope(
    earlier: Sequence[RoundManifest], metrics: dict[str, float | None], rewards: Mapping[str, str]
) -> float | None:
    """Proxy minus gold over the rounds so far, in sds of the initial policy's answers. None where the reward model was
    refitted on the way: its scales differ."""
    if any(m.rewards and m.rewards != rewards for m in earlier):
        return None
    history = [*(m.metrics for m in earlier), metrics]
    proxy, gold = ([m.get(name) for m in history] for name in ("reward_mean", "gold_mean"))
    proxy_sd, gold_sd = history[0].get("reward_sd"), history[0].get("gold_sd")
    if not proxy_sd or not gold_sd or None in proxy or None in gold:
        return None
    return hacking_slope([p for p in proxy if p is not None], [g for g in gold if g is not None],
                         proxy_sd=proxy_sd, gold_sd=gold_sd)  # fmt: skip


def _rows(artifact: Artifact, row_type: type[Row]) -> list[Row]:
    return list(artifacts.read_rows(artifact, row_type))
