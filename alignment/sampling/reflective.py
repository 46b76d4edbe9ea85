"""Samplers that refine: preference-guided reflective sampling, and greedy refinement."""

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import PositiveInt, model_validator

from alignment.sampling.growing import Grower, Refine, Seed, Tree, grown
from alignment.sampling.interleave import interleave
from alignment.sampling.requests import Decoding, Drawn, Generate, Score
from alignment.types import Prompt, Strategy


class Reflective(Strategy):
    """PRS: spend n completions on a small tree instead of n independent draws.

    Ye & Ng 2024, arXiv:2408.12163, algorithm 1. A first layer is drawn from p(y | x, z), z the prompt's stated
    preference; each later layer from p(y | x, z, y*, f), y* the best of everything drawn before and f feedback that the
    policy itself writes about y*. The candidates are the union of the layers. Two layers of n / 2 are the paper's.

    One layer is ``PreferenceConditioned``, sample for sample. ``split = [1, n - 1]`` is the paper's PRS(0, N). Unlike
    the authors' script: y* is finished, not blank and has a reward (there a failed one counts as 0, and truncated ones
    may win); an n that does not divide is spent whole, the remainder in the last layer; where draft and feedback do not
    fit the context, the completion is refined without feedback, or else drawn as a draft, and the group says so.
    """

    reads_rewards: ClassVar[bool] = True

    type: Literal["reflective"] = "reflective"
    n: PositiveInt = 16
    """Completions, over all layers; feedback is not counted."""
    depth: PositiveInt = 2
    """Layers."""
    split: tuple[PositiveInt, ...] | None = None
    """Completions of each layer; None splits n evenly."""
    decoding: Decoding = Decoding()
    refine: Refine = Refine()

    @property
    def widths(self) -> tuple[int, ...]:
        """Completions of each layer, n in all."""
        each = self.n // self.depth
        return self.split or (*[each] * (self.depth - 1), self.n - each * (self.depth - 1))

    @property
    def tokens_at_most(self) -> int:
        """Sampled for one prompt, feedback included."""
        return self.n * self.decoding.max_tokens + self.refine.tokens_at_most(self.decoding, len(self.widths) - 1)

    @model_validator(mode="after")
    def _spent_whole(self) -> Self:
        if self.n < self.depth:
            raise ValueError(f"n = {self.n} completions in depth = {self.depth} layers: raise n or lower depth")
        if self.split is not None and (len(self.split), sum(self.split)) != (self.depth, self.n):
            raise ValueError(
                f"split = {list(self.split)} gives {sum(self.split)} completions in {len(self.split)} layers, but "
                f"n = {self.n} and depth = {self.depth}: set all three alike"
            )
        if (narrowest := min(self.widths[1:], default=self.refine.feedbacks)) < self.refine.feedbacks:
            raise ValueError(
                f"refine.feedbacks = {self.refine.feedbacks} for a layer of {narrowest} completions: some feedback "
                "would go unused; lower it, or widen the layers"
            )
        return self

    def __call__(self, prompts: Sequence[Prompt], generate: Generate, score: Score, *, seed: Seed) -> list[Drawn]:
        """n candidates per prompt, none for one that does not fit the context, fewer where the reward cap stops it or
        meta text is set aside. Neither order nor sharding of prompts changes a completion."""
        return _grown(prompts, self.widths, self.decoding, self.refine, generate, score, seed)


class Greedy(Strategy):
    """n completions, each refining the best so far: PRS with layers of one completion.

    The sequential baseline of Ye & Ng 2024, arXiv:2408.12163, which their code leaves out; that every step has fresh
    feedback is an assumption. Each step waits for the one before it, so it is slow: many prompts keep engines busy.
    n = 1 is one plain completion.
    """

    reads_rewards: ClassVar[bool] = True

    type: Literal["greedy"] = "greedy"
    n: PositiveInt = 16
    decoding: Decoding = Decoding()
    refine: Refine = Refine()

    @property
    def tokens_at_most(self) -> int:
        """Sampled for one prompt, feedback included."""
        return self.n * self.decoding.max_tokens + self.refine.tokens_at_most(self.decoding, self.n - 1)

    @model_validator(mode="after")
    def _one_feedback(self) -> Self:
        if self.refine.feedbacks > 1:
            raise ValueError(f"refine.feedbacks = {self.refine.feedbacks}: greedy refines one at a time; set it to 1")
        return self

    def __call__(self, prompts: Sequence[Prompt], generate: Generate, score: Score, *, seed: Seed) -> list[Drawn]:
        """As ``Reflective``."""
        return _grown(prompts, [1] * self.n, self.decoding, self.refine, generate, score, seed)


def _grown(
    prompts: Sequence[Prompt],
    widths: Sequence[int],
    decoding: Decoding,
    how: Refine,
    generate: Generate,
    score: Score,
    seed: Seed,
) -> list[Drawn]:
    growers = [Grower(Tree(prompt), decoding, how, seed) for prompt in prompts]
    return interleave([grown(grower, widths) for grower in growers], generate, score)
