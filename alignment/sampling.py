"""Samplers: how a round's completions are drawn. The policy and the reward arrive as arguments."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from pydantic import Field, PositiveFloat, PositiveInt

from alignment.types import Candidate, Prompt, Strategy, seed_of


class Decoding(Strategy):
    """How one token is drawn. The defaults sample the policy itself: with any other setting the proposal is a
    tilted policy, while losses keep the plain one as their reference."""

    temperature: PositiveFloat = 1.0
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    """0 keeps every token."""
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
        """One list of ``n`` candidates per request, indices 0..n-1."""
        ...


class Score(Protocol):
    """What opened reward models are to a method."""

    def __call__(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> list[Mapping[str, list[float | None]]]: ...


class Independent(Strategy):
    """n completions per prompt, independent given the prompt, from one request (shared prefix)."""

    type: Literal["independent"] = "independent"
    n: PositiveInt = 8
    decoding: Decoding = Decoding()

    def __call__(
        self, prompts: Sequence[Prompt], generate: Generate, score: Score, *, seed: tuple[int | str, ...]
    ) -> list[list[Candidate]]:
        """One list of n candidates per prompt. Seeds depend on the prompt, not on its place, so neither order nor
        sharding changes a completion."""
        return generate(
            [Request(prompt=p, n=self.n, seed=seed_of(*seed, p.id, 0), decoding=self.decoding) for p in prompts]
        )


Sampler = Independent
