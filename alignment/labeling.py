"""Labelers: who decides which completion of a selected pair is the better one."""

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self, assert_never

import numpy as np
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from alignment.ensembles import by_disagreement, member_margins
from alignment.errors import UserError
from alignment.types import Group, PreferencePair, Strategy, seed_of

Verdict = Literal["A", "B", "tie"]
"""What a judge said of two answers as they were shown."""

FailureKind = Literal["timeout", "unreachable", "status", "unreadable", "unclear"]


class JudgeFailure(NamedTuple):
    """A comparison that a judge did not decide, and why: no answer in time, no connection, an error status, an answer
    that is no completion, or a completion that names no winner."""

    kind: FailureKind
    reason: str


class ByReward(Strategy):
    """The selector's order stands: the reward has decided."""

    type: Literal["by_reward"] = "by_reward"


class LanguageJudge(Strategy):
    """A language model behind an OpenAI-compatible endpoint compares the two completions, in both orders.

    Only a winner named in both orders counts (Zheng et al. 2023, arXiv:2306.05685, on position bias); anything else
    is a tie. It is shown the question without goals and without rewards.
    """

    type: Literal["judge"] = "judge"
    url: str = Field(pattern=r"^https?://[^?#\s]+$")
    """Up to and without ``/chat/completions``; what a server wants beside the key cannot be asked for in an address."""
    model: str = Field(min_length=1)
    key: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]*$")
    """Name of the environment variable that holds the key, never the key itself; None sends none."""
    template: str = (
        "Two answers to one request follow. Decide which of them serves the request better. Their order means nothing, "
        "nor does length for its own sake.\n\n[Request]\n{prompt}\n\n[Answer A]\n{a}\n\n[Answer B]\n{b}\n\n"
        "End with one line that is exactly A, B or tie."
    )
    ties: Literal["drop", "half"] = "drop"
    """``half`` keeps a tied pair with p = 1/2."""
    budget: PositiveInt | None = None
    """Pairs that are labelled at most; None labels all. Those beyond it are left out and counted."""
    order: Literal["given", "disagreement"] = "given"
    """Which pairs the budget goes to: the first, or those that the members of an ensemble reward dispute most."""
    timeout: PositiveFloat = 60.0
    """Seconds for one answer."""
    retries: NonNegativeInt = 2
    """Of a failed comparison, each after twice the wait. An answer that names no winner is not asked for again."""
    concurrency: PositiveInt = 4
    max_failure_rate: NonNegativeFloat = Field(default=0.05, le=1)
    """Share of pairs without a verdict above which the step fails."""

    @field_validator("key", mode="before")
    @classmethod
    def _names_a_variable(cls, key: Any) -> Any:
        if isinstance(key, str) and not re.fullmatch(r"[A-Z][A-Z0-9_]*", key):
            raise ValueError("label.key names the environment variable that holds the key, in capitals, never the key")
        return key

    @model_validator(mode="after")
    def _shows_all(self) -> Self:
        if missing := [name for name in ("{prompt}", "{a}", "{b}") if self.template.count(name) != 1]:
            raise ValueError(f"label.template must have {', '.join(missing)} once: the judge would not see it")
        return self

    def asked(self, prompt: str, a: str, b: str) -> str:
        """The one message of a comparison; braces in the texts are left alone."""
        shown = {"{prompt}": prompt, "{a}": a, "{b}": b}
        return re.sub(r"\{(?:prompt|a|b)\}", lambda blank: shown[blank[0]], self.template)


class ByGold(Strategy):
    """The run's ``gold`` reward decides, as an oracle would: for worlds whose gold reward is known.

    Training then sees gold, so gold no longer measures what training could not see. With ``noise`` it errs as a
    Bradley-Terry labeller does: P(a preferred to b) = sigmoid((gold a - gold b) / noise). How many labels are asked
    for is the selector's choice, such as ``select.labels`` of ``apl``.
    """

    type: Literal["gold"] = "gold"
    noise: NonNegativeFloat = 0.0
    """Temperature, in units of gold; 0 never errs."""

    def __call__(self, pair: PreferencePair, group: Group, *, seed: tuple[int | str, ...]) -> PreferencePair | str:
        """The pair in gold's order; where there is none, the reason: a score that is missing, or equal scores, noise or
        not, since a coin's label teaches nothing.

        The draw depends on ``seed``, the prompt and the two texts: one question has one answer, whoever asks it.
        """
        gold_G = group.rewards["gold"]
        first, second = sorted((pair.chosen, pair.rejected), key=lambda i: group.candidates[i].text)
        ours, theirs = gold_G[first], gold_G[second]
        if ours is None or theirs is None:
            return f"gold: {_reason(group, first if ours is None else second)}"
        if ours == theirs:
            return "gold ties"
        texts = (group.candidates[i].text for i in (first, second))
        prefers_first = self._draws_first(ours - theirs, seed_of(*seed, "gold label", pair.prompt_id, *texts))
        return in_order(pair, turned=prefers_first != (first == pair.chosen), by="gold")

    def _draws_first(self, gap: float, seed: int) -> bool:
        """Whether the first of two completions is preferred, whose gold exceeds the other's by ``gap``."""
        if self.noise == 0:
            return gap > 0
        likely = (1 + math.tanh(gap / (2 * self.noise))) / 2  # sigmoid, without overflow
        return bool(np.random.default_rng(seed).random() < likely)


def _reason(group: Group, candidate: int) -> str:
    """Why a candidate has no gold score."""
    return next((f.reason for f in group.failures if f.model == "gold" and f.candidate == candidate), "no score")


Labeler = Annotated[ByReward | LanguageJudge | ByGold, Field(discriminator="type")]


def verdict_in(answer: str) -> Verdict | JudgeFailure:
    """The last line that holds anything, if it names a winner and nothing else."""
    lines = [line.strip().strip("*.[]() ").lower() for line in answer.splitlines() if line.strip()]
    match lines[-1] if lines else "":
        case "a":
            return "A"
        case "b":
            return "B"
        case "tie":
            return "tie"
        case other:
            return JudgeFailure("unclear", f"the judge's last line is {other[:40]!r}, not A, B or tie")


def labelled(pair: PreferencePair, forward: Verdict, backward: Verdict) -> PreferencePair | None:
    """The pair in the judge's order; None for a tie. ``forward`` showed chosen as A, ``backward`` as B."""
    match forward, backward:
        case "A", "B":
            return in_order(pair, turned=False, by="judge")
        case "B", "A":
            return in_order(pair, turned=True, by="judge")
        case _:
            return None


def in_order(pair: PreferencePair, *, turned: bool, by: str) -> PreferencePair:
    """The pair as a labeler orders it. The margin is left out where the order turned: it is the reward's, and says the
    contrary."""
    other = {"chosen": pair.rejected, "rejected": pair.chosen, "margin": None} if turned else {}
    return pair.model_copy(update={"source": f"{pair.source}+{by}", "p": 1.0, **other})


def budgeted(judge: LanguageJudge, groups: Sequence[Group], pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """The pairs that are labelled: exactly ``budget`` of them, or all where there are fewer."""
    budget = len(pairs) if judge.budget is None else judge.budget
    match judge.order:
        case "given":
            return list(pairs[:budget])
        case "disagreement":
            names = {name.removeprefix("reward.") for g in groups for name in g.rewards if name.startswith("reward.")}
            if len(names) < 2:
                raise UserError(
                    "label.order = 'disagreement' needs the members of an ensemble: set reward.type = 'ensemble', or "
                    "label.order = 'given'"
                )
            order = by_disagreement(member_margins(groups, pairs, "reward", sorted(names)))
            return [pairs[n] for n in order[:budget]]
        case _:
            assert_never(judge.order)
