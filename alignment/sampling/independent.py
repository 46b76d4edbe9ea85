"""Samplers that draw all completions of a prompt at once."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from alignment.sampling.requests import Decoding, Drawn, Generate, Request, Score
from alignment.types import Candidate, Prompt, Strategy, seed_of


class Independent(Strategy):
    """n completions per prompt, independent given the prompt, from one request (shared prefix)."""

    reads_rewards: ClassVar[bool] = False

    type: Literal["independent"] = "independent"
    n: PositiveInt = 8
    decoding: Decoding = Decoding()
    withhold_preference: bool = Field(default=False, exclude_if=lambda withheld: not withheld)
    """Whether the policy does not see a stated preference: "Rand" in Ye & Ng 2024, arXiv:2408.12163. Its completions
    are still those of the prompt with its preference, which is what rewards and training read; drawn under another
    prompt, they have no ``logprob``."""

    @property
    def tokens_at_most(self) -> int:
        """Sampled for one prompt."""
        return self.n * self.decoding.max_tokens

    def __call__(
        self, prompts: Sequence[Prompt], generate: Generate, score: Score, *, seed: tuple[int | str, ...]
    ) -> list[Drawn]:
        """n candidates per prompt, none for one that does not fit the context. Seeds depend on the prompt, not on its
        place, so neither order nor sharding changes a completion."""
        asked = [_without_preference(p) if self.withhold_preference else p for p in prompts]
        drawn_P = generate(
            [
                Request(prompt=a, n=self.n, seed=seed_of(*seed, p.id, 0), decoding=self.decoding)
                for p, a in zip(prompts, asked, strict=True)
            ]
        )
        return [
            drawn_at_once(candidates if p.id == a.id else [c.model_copy(update={"logprob": None}) for c in candidates])
            for p, a, candidates in zip(prompts, asked, drawn_P, strict=True)
        ]


class PreferenceConditioned(Strategy):
    """n independent completions per prompt given its stated preference: p(y | x, z).

    "PRand" in Ye & Ng 2024, arXiv:2408.12163, and the baseline that PRS has to beat at an equal number of completions:
    PRS of one layer is this, sample for sample. A prompt that states no preference is sampled as it stands.
    """

    reads_rewards: ClassVar[bool] = False

    type: Literal["preference_conditioned"] = "preference_conditioned"
    n: PositiveInt = 16
    decoding: Decoding = Decoding()

    @property
    def tokens_at_most(self) -> int:
        """Sampled for one prompt."""
        return self.n * self.decoding.max_tokens

    def __call__(
        self, prompts: Sequence[Prompt], generate: Generate, score: Score, *, seed: tuple[int | str, ...]
    ) -> list[Drawn]:
        """n candidates per prompt, as ``Independent`` draws them where the preference is not withheld."""
        return Independent(n=self.n, decoding=self.decoding)(prompts, generate, score, seed=seed)


def drawn_at_once(candidates: Sequence[Candidate]) -> Drawn:
    return Drawn(tuple(candidates), tokens=sum(len(c.token_ids) for c in candidates))


def _without_preference(prompt: Prompt) -> Prompt:
    return Prompt.of(prompt.messages, None, prompt.metadata, prompt.goal)
