"""Relabelers: pairs under other prompts than those their completions were sampled for."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, model_validator

from alignment.errors import UserError
from alignment.relabelled_rows import Render, Row, gathered
from alignment.score_maps import HIGHEST, LOWEST, Scale, ScoreMap
from alignment.types import Dropped, Goal, Group, PreferencePair, Prompt, Record, Strategy, digest_of


class Relabelled(Record):
    """What a relabeler made of a round's pairs."""

    groups: tuple[Group, ...]
    """One per prompt and goal, with the candidates that its pairs use."""
    pairs: tuple[PreferencePair, ...]
    dropped: tuple[Dropped, ...]
    """One per pair that gave no rows; ``item`` is ``prompt id:chosen,rejected``."""
    metrics: dict[str, float]


class _Judged(NamedTuple):
    """A pair with the goals that its own two rewards stand for."""

    group: Group
    pair: PreferencePair
    high: float
    low: float


class RewardConditioned(Strategy):
    """RAD: each pair twice, under the score of its chosen completion as it is, under that of its rejected one swapped.

    Zhang et al. 2025, arXiv:2410.08067. With the goal-conditioned reward R(x, y, g) = -(g - r(x, y))^2, a completion
    is the best answer to its own score. Any loss runs unchanged on the 2n pairs, and its reference is evaluated with
    the goal in the prompt as well. Of the authors' two scripts the one for templates without a system role does not
    swap, which trains "prefer chosen" under both goals.

    Both goals of a pair must be on the score map, and the label must agree with them: anything else is dropped and
    said. Equal goals are dropped whatever ``min_gap`` is, since two opposite labels under one prompt say nothing.

    The two rows of a pair hold the same completions in opposite orders, mostly in different optimiser steps: where
    steps are small, each unlearns the last, and training accuracy falls below one half (to 0.30 within 182 steps of 8
    groups in the sandbox). Both rows in one step ended that (0.53), and changed nothing in what the policy wrote.
    """

    type: Literal["reward_conditioned"] = "reward_conditioned"
    scale: Scale = ScoreMap()
    min_gap: NonNegativeFloat = 1.0
    """Least difference of the two goals (ours; the paper keeps every pair). The gap enters the margin squared, so
    narrow pairs are mostly the judge's noise."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the remaining pairs that is relabelled, drawn by digest: 0.5 is the paper's half variant, which has as
    many rows as there were pairs. Both rows of a pair stay together."""
    placement: Literal["system", "user"] = "system"
    """Where the goal stands: ``user`` for chat templates without a system role."""
    text: str = (
        "Answer so that a strict judge would give the answer an overall score of {goal}, where 1 is the lowest and 10 "
        "the highest. Do not speak of the score."
    )
    """Says the goal, in words of our own. ``{goal}`` is the number, whole ones without decimals."""
    words: tuple[str, ...] | None = Field(default=None, exclude_if=lambda words: words is None)
    """What the whole goals are called, the lowest first, for a policy whose vocabulary has no numbers. None writes them
    as numbers, and is left out of a recipe's identity, so that pairs made before there were words are still found."""
    serve: float = HIGHEST
    """The goal that the trained policy is asked for wherever it is sampled, evaluated or exported."""

    @model_validator(mode="after")
    def _on_the_map(self) -> Self:
        low, high = self.ends
        if not low <= self.serve <= high:
            raise ValueError(
                f"relabel.serve = {self.serve:g} is outside the score map's goals {low:g} to {high:g}: no pair can be "
                "trained near it; lower it, or widen relabel.scale"
            )
        if self.text.count("{goal}") != 1 or self.text.replace("{goal}", "").strip() == "":
            raise ValueError(f"relabel.text = {self.text!r} must say {{goal}} once, among words")
        return self

    @model_validator(mode="after")
    def _a_word_for_each(self) -> Self:
        if self.words is None:
            return self
        wanted, distinct = int(self.ends[1] - self.ends[0]) + 1, len(set(self.words))
        if self.scale.decimals != 0 or not len(self.words) == distinct == wanted:
            raise ValueError(
                f"relabel.words has {distinct} names, and the score map {wanted} whole goals with "
                f"{self.scale.decimals} decimals: name each goal once, and set relabel.scale.decimals = 0"
            )
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest goal of the score map."""
        goals = self.scale.goals if isinstance(self.scale, ScoreMap) else (LOWEST, HIGHEST)
        return goals[0], goals[-1]

    def goal(self, score: float) -> Goal:
        """What the policy is told for a score."""
        said = f"{score:g}" if self.words is None else self.words[round(score - self.ends[0])]
        return Goal(text=self.text.replace("{goal}", said), placement=self.placement)

    @property
    def serving(self) -> Goal:
        return self.goal(self.serve)

    def fitted(self, rewards: Sequence[float]) -> ScoreMap:
        """The run's score map, from the initial policy's held-out rewards where it is not given. UserError where those
        do not reach the goal that is served."""
        if isinstance(self.scale, ScoreMap):
            return self.scale
        scale = self.scale.fit(rewards)
        if not scale.goals[0] <= self.serve <= scale.goals[-1]:
            raise UserError(
                f"relabel.serve = {self.serve:g} is outside the goals {scale.goals[0]:g} to {scale.goals[-1]:g} of the "
                "score map that was fitted, since many rewards are the same: no pair can be trained near it; lower it, "
                "or set relabel.scale.type = 'given'"
            )
        return scale

    def __call__(
        self,
        groups: Sequence[Group],
        pairs: Sequence[PreferencePair],
        scale: ScoreMap,
        render: Render,
        *,
        reward: str,
        context: int | None,
    ) -> Relabelled:
        """Two rows for each pair that is kept, the high goal's first, by the rewards named ``reward``.

        A goal that a prompt was sampled under counts for nothing here: text is labelled by what it scored. A pair
        whose row would exceed the policy's ``context`` is dropped, as cutting would take the goal or the answer.
        """
        ids: dict[str, tuple[int, ...]] = {}

        def ids_of(prompt: Prompt) -> tuple[int, ...]:
            if prompt.id not in ids:
                ids[prompt.id] = render(prompt)
            return ids[prompt.id]

        by_prompt = {group.prompt.id: group for group in groups}
        fit: list[_Judged] = []
        dropped: list[Dropped] = []
        for pair in pairs:
            judged = self._judged(by_prompt[pair.prompt_id], pair, scale, reward)
            if isinstance(judged, _Judged):
                judged = self._too_long(judged, ids_of, context) or judged
            if isinstance(judged, str):
                item = f"{pair.prompt_id}:{pair.chosen},{pair.rejected}"
                dropped.append(Dropped(step="relabel", item=item, reason=judged))
            else:
                fit.append(judged)
        kept = self._drawn(fit)
        conditioned, made = gathered([row for one in kept for row in self._rows(one)], ids_of)
        metrics = self._metrics(kept, left_out=len(fit) - len(kept), dropped=len(dropped))
        return Relabelled(groups=conditioned, pairs=made, dropped=tuple(dropped), metrics=metrics)

    def _judged(self, group: Group, pair: PreferencePair, scale: ScoreMap, reward: str) -> _Judged | str:
        """The pair with its goals, or why it gives no rows."""
        goals: list[float] = []
        rewards_G = group.rewards.get(reward)
        for side, i in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            raw = None if rewards_G is None else rewards_G[i]
            if raw is None:
                return f"its {side} completion has no score"
            goal = scale(raw)
            if goal is None:
                ends = f"{scale.rewards[0]:g} to {scale.rewards[-1]:g}"
                return f"its {side} completion's reward {raw:g} is outside the score map's {ends}"
            goals.append(goal)
        high, low = goals
        gap = round(high - low, scale.decimals)
        if gap < 0:
            return "its label contradicts its scores"
        if gap == 0:
            return "both completions have the same goal"
        if gap < self.min_gap:
            return f"its goals differ by less than relabel.min_gap = {self.min_gap:g}"
        return _Judged(group, pair, high, low)

    def _too_long(self, one: _Judged, ids_of: Render, context: int | None) -> str | None:
        completion = max(len(one.group.candidates[i].token_ids) for i in (one.pair.chosen, one.pair.rejected))
        prompt = max(len(ids_of(one.group.prompt.at_goal(self.goal(score)))) for score in (one.high, one.low))
        if context is None or prompt + completion <= context:
            return None
        return f"goal, prompt and completion of {prompt + completion} tokens exceed the policy's context of {context}"

    def _drawn(self, fit: Sequence[_Judged]) -> list[_Judged]:
        """The share of the pairs that is used, in their order. A prefix would take the first prompts."""
        count = int(self.share * len(fit) + 0.5)
        by_digest = sorted(range(len(fit)), key=lambda n: digest_of(_identity(fit[n])))
        return [fit[n] for n in sorted(by_digest[:count])]

    def _rows(self, one: _Judged) -> tuple[Row, Row]:
        """As it is under the high goal, swapped under the low one."""
        higher, lower = (one.group.prompt.at_goal(self.goal(score)) for score in (one.high, one.low))
        same = one.pair.model_copy(update={"margin": (one.high - one.low) ** 2})
        swapped = same.model_copy(update={"chosen": one.pair.rejected, "rejected": one.pair.chosen})
        return Row(higher, one.group, same), Row(lower, one.group, swapped)

    def _metrics(self, kept: Sequence[_Judged], *, left_out: int, dropped: int) -> dict[str, float]:
        """Counts, and how the goals lie: where ``serve`` is above ``goal_max``, the policy is asked to extrapolate."""
        counts = {"relabelled": 2.0 * len(kept), "left_out": float(left_out), "dropped": float(dropped)}
        goals = [goal for one in kept for goal in (one.high, one.low)]
        if not goals:
            return counts
        low, middle, ninth = (float(q) for q in np.quantile(goals, (0, 0.5, 0.9)))
        spread = {"goal_min": low, "goal_median": middle, "goal_p90": ninth, "goal_max": max(goals)}
        return counts | spread | {"goal_serve": self.serve}


Relabel = RewardConditioned


def _identity(one: _Judged) -> list[str | int]:
    return [one.group.prompt.at_goal(None).id, one.pair.chosen, one.pair.rejected]
