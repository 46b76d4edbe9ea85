"""What samplers ask of an opened policy and of opened reward models, and what they give back."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt

from alignment.types import Candidate, Failure, Prompt, Strategy


class Decoding(Strategy):
    """How one token is drawn. The defaults sample the policy itself: with any other setting the proposal is a
    tilted policy, while losses keep the plain one as their reference."""

    temperature: PositiveFloat = 1.0
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    """0 keeps every token."""
    presence_penalty: FiniteFloat = Field(default=0.0, ge=-2, le=2, exclude_if=lambda penalty: penalty == 0)
    """Taken from the logit of every token that the completion holds already. Left out of a recipe's identity at 0, so
    that artifacts made before there was one are still found."""
    max_tokens: PositiveInt = 64


class Request(Strategy):
    """n completions of one prompt from one engine request."""

    prompt: Prompt
    n: PositiveInt
    seed: int
    decoding: Decoding


class Generate(Protocol):
    """What an opened policy is to a method."""

    def __call__(self, requests: Sequence[Request]) -> list[list[Candidate]]:
        """One list of ``n`` candidates per request, indices 0..n-1; an empty list where the prompt does not fit the
        context."""
        ...


class Score(Protocol):
    """What opened reward models are to a method."""

    def __call__(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> list[Mapping[str, list[float | None]]]:
        """Per prompt, the rewards of its texts by reward model; None is a failed score."""
        ...


class Drawn(NamedTuple):
    """What a sampler made of one prompt."""

    candidates: tuple[Candidate, ...]
    """Indices 0..G-1. One without token ids was shortened after it was sampled, so its text has to be tokenised."""
    failures: tuple[Failure, ...] = ()
    """Per completion that was not drawn as asked, and per one that was set aside: which, and why."""
    tokens: int = 0
    """Sampled on the way: those of feedback, and of completions that were set aside, included."""
