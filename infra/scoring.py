"""Rewards of groups: scores where they can be had, reasons where they cannot."""

import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from alignment.ensembles import Floats, aggregated, standardised
from alignment.probes import Probe
from alignment.rewards import Ensemble, Implicit, Pairwise, ScalarHead, Verifier
from alignment.types import Candidate, Failure, Group, Prompt
from infra import checks
from infra.reward_models import Input, Measured, Numbers, Outcome, RewardSource, implicit, pairwise, scalar, verifier

PROBED = 4
"""Inputs of a model's first batch that are scored alone as well, and beside each other."""


class Scorers:
    """Opened reward models, by name."""

    def __init__(
        self,
        numbers: Numbers | None,
        rewards: Mapping[str, RewardSource],
        *,
        policy: Path | None,
        seed: tuple[int | str, ...],
    ):
        self.probes: dict[str, Probe] = {}
        """Probe (b) of each model, from its first batch whose inputs differ in length, or from the last one before."""
        self._padded: set[str] = set()
        """Models whose probe saw padding."""
        self._reading = threading.Lock()
        self._ensembles = {name: s.config for name, s in rewards.items() if isinstance(s.config, Ensemble)}
        self._models = {
            name: _open(source, numbers, policy=policy, seed=(*seed, name)) for name, source in _single(rewards).items()
        }

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with a reward per model and candidate. A score that could not be had is None, with a failure that
        says why. Raises ProbeFailed when a score depends on what shares its batch."""
        for name, model in self._models.items():
            outcomes_P_G = self._outcomes(name, model, groups)
            groups = [_scored(g, name, outcomes_G) for g, outcomes_G in zip(groups, outcomes_P_G, strict=True)]
        for name, ensemble in self._ensembles.items():
            groups = [_together(g, name, ensemble) for g in groups]
        return list(groups)

    def __call__(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> list[Mapping[str, list[float | None]]]:
        """As a strategy sees it (``alignment.sampling.Score``): drafts as text, tokenised for each model."""
        groups = [_drafts(prompt, texts_G) for prompt, texts_G in zip(prompts, texts, strict=True)]
        return [{name: list(rewards_G) for name, rewards_G in g.rewards.items()} for g in self.score(groups)]

    def _outcomes(self, name: str, model: Measured, groups: Sequence[Group]) -> list[list[Outcome]]:
        with self._reading:  # tokenizers are not for several threads
            read_P_G = [model.read(_as_asked(group)) for group in groups]
        inputs = [item for read_G in read_P_G for item in read_G if isinstance(item, Input)]
        values = model.measure(inputs, False) if inputs else []
        if inputs and name not in self._padded:
            self.probes[name] = _probe(name, model, inputs, values)
            self._padded |= {name} if len({_tokens(one) for one in inputs}) > 1 else set()
        measured = iter(values)
        return [[next(measured) if isinstance(item, Input) else item for item in read_G] for read_G in read_P_G]


def _probe(name: str, model: Measured, inputs: Sequence[Input], values: Sequence[float]) -> Probe:
    """Probe (b) on the shortest input, the longest and some between: alone, against their scores in the batch they came
    in, and against a batch of just them, where the shortest is padded most."""
    by_length = sorted(range(len(inputs)), key=lambda i: _tokens(inputs[i]))
    places = np.linspace(0, len(inputs) - 1, min(PROBED, len(inputs))).round().astype(int).tolist()
    probed = [by_length[place] for place in places]
    chosen = [inputs[i] for i in probed]
    alone, beside = model.measure(chosen, True), model.measure(chosen, False)
    return checks.check_scores(name, chosen * 2, alone * 2, [values[i] for i in probed] + beside)


def _tokens(one: Input) -> int:
    return len(one.first) + len(one.second)


def _open(
    source: RewardSource, numbers: Numbers | None, *, policy: Path | None, seed: tuple[int | str, ...]
) -> Measured:
    if isinstance(source.config, Verifier):
        return verifier(source.config)
    if numbers is None:
        raise ValueError(f"a reward of type {source.config.type} needs the training stack")
    match source.config:
        case ScalarHead():
            return scalar(source.models["model"], numbers, policy=policy)
        case Pairwise():
            return pairwise(source.config, source.models["model"], numbers, seed=seed)
        case Implicit(beta=beta):
            return implicit(beta, source.models["policy"], source.models["reference"], numbers, policy=policy)
        case Ensemble():
            raise ValueError("an ensemble is opened member by member")


def _single(rewards: Mapping[str, RewardSource]) -> dict[str, RewardSource]:
    """Every reward model that is opened, members of ensembles as ``ensemble.member``."""
    single: dict[str, RewardSource] = {}
    for name, source in rewards.items():
        members = {f"{name}.{member}": of for member, of in source.members.items()}
        single |= members if isinstance(source.config, Ensemble) else {name: source}
    return single


def _together(group: Group, name: str, ensemble: Ensemble) -> Group:
    """The group with its members' rewards standardised, and the ensemble's. Failures are those of the members."""
    names = [f"{name}.{member}" for member in ensemble.members]
    if not ensemble.standards:
        raise ValueError(f"ensemble {name!r} has no standards: its members were not measured")
    raw_M_G = np.array([group.rewards[n] for n in names], dtype=np.float64)  # None becomes NaN
    scores_M_G = standardised(raw_M_G, [ensemble.standards[member] for member in ensemble.members])
    rewards_G = aggregated(scores_M_G, ensemble.aggregate, ensemble.penalty)  # NaN where any member has none
    of_members = {n: _or_none(row) for n, row in zip(names, scores_M_G, strict=True)}
    failed = {f.candidate: f for f in group.failures if f.model in names}
    failures = tuple(f.model_copy(update={"model": name, "reason": f"{f.model}: {f.reason}"}) for f in failed.values())
    rewards = {**group.rewards, **of_members, name: _or_none(rewards_G)}
    return group.model_copy(update={"rewards": rewards, "failures": group.failures + failures})


def _or_none(rewards_G: Floats) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(r) else r for r in rewards_G.tolist())


def _as_asked(group: Group) -> Group:
    """The group without the goal its completions were sampled for: a reward that saw it would judge obedience."""
    if group.prompt.goal is None:
        return group
    return group.model_copy(update={"prompt": group.prompt.at_goal(None), "prompt_ids": ()})


def _scored(group: Group, name: str, outcomes_G: Sequence[Outcome]) -> Group:
    reasons = [
        outcome if isinstance(outcome, str) else None if math.isfinite(outcome) else f"the score is {outcome}"
        for outcome in outcomes_G
    ]
    rewards_G = tuple(None if why else float(outcome) for outcome, why in zip(outcomes_G, reasons, strict=True))
    failures = tuple(
        Failure(prompt_id=group.prompt.id, candidate=i, model=name, reason=why) for i, why in enumerate(reasons) if why
    )
    return group.model_copy(
        update={"rewards": {**group.rewards, name: rewards_G}, "failures": group.failures + failures}
    )


def _drafts(prompt: Prompt, texts: Sequence[str]) -> Group:
    candidates = tuple(
        Candidate(index=i, text=text, token_ids=(), finish_reason="stop") for i, text in enumerate(texts)
    )
    return Group(prompt=prompt, prompt_ids=(), candidates=candidates)
