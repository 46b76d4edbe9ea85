"""Labelers: who decides which completion of a selected pair is the better one."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Self, assert_never

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from alignment.ensembles import by_disagreement, member_margins
from alignment.errors import UserError
from alignment.types import Group, PreferencePair, Strategy

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
    url: str = Field(pattern=r"^https?://")
    """Up to and without ``/chat/completions``."""
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

    @model_validator(mode="after")
    def _shows_all(self) -> Self:
        if missing := [name for name in ("{prompt}", "{a}", "{b}") if self.template.count(name) != 1]:
            raise ValueError(f"label.template must have {', '.join(missing)} once: the judge would not see it")
        return self

    def asked(self, prompt: str, a: str, b: str) -> str:
        """The one message of a comparison; braces in the texts are left alone."""
        shown = {"{prompt}": prompt, "{a}": a, "{b}": b}
        return re.sub(r"\{(?:prompt|a|b)\}", lambda blank: shown[blank[0]], self.template)


Labeler = Annotated[ByReward | LanguageJudge, Field(discriminator="type")]


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
    """The pair in the judge's order; None for a tie. ``forward`` showed chosen as A, ``backward`` as B.

    The margin is left out where the order turned: it is the reward's, and says the contrary.
    """
    source = f"{pair.source}+judge"
    match forward, backward:
        case "A", "B":
            return pair.model_copy(update={"source": source, "p": 1.0})
        case "B", "A":
            turned = {"chosen": pair.rejected, "rejected": pair.chosen, "margin": None}
            return pair.model_copy(update={"source": source, "p": 1.0, **turned})
        case _:
            return None


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
