"""Where a policy or a reward model comes from."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from alignment.types import Strategy


class Architecture(Strategy):
    """A Llama-shaped network trained from scratch. Embeddings are untied: a sampler that reloads tied weights in
    place can silently keep the old output head."""

    hidden: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    feed_forward: PositiveInt = 512
    context: PositiveInt = 256


class Scratch(Strategy):
    """Trained from scratch on the run's world: a policy on its demonstrations, a reward model on its labels."""

    type: Literal["scratch"] = "scratch"
    architecture: Architecture = Architecture()
    examples: PositiveInt
    """Demonstrations for a policy, labelled pairs for a reward model."""
    epochs: PositiveFloat = 1.0
    learning_rate: PositiveFloat = 0.015
    """Peak rate of Muon, for the layers' matrices; embeddings, head and norms take a fifth of it with AdamW."""
    batch_tokens: PositiveInt = 1024
    seed: NonNegativeInt = 0


class Pretrained(Strategy):
    """A transformers directory, a hub id, or the address of a model in a store. Weights must be safetensors."""

    type: Literal["pretrained"] = "pretrained"
    model: str = Field(min_length=1)
    revision: str | None = None
    trust_remote_code: bool = False


def _from_text(value: object) -> object:
    return {"type": "pretrained", "model": value} if isinstance(value, str) else value


ModelSource = Annotated[Scratch | Pretrained, Field(discriminator="type"), BeforeValidator(_from_text)]
"""A bare string means ``pretrained``."""


class Trained(Strategy):
    """Trained on labelled pairs, from a model that exists or from the run's initial policy.

    A prompt's completions go through the model once, in however many pairs they stand; the loss is averaged over a
    batch's pairs. One process with AdamW and no dropout: weights, gradients and two moments are 16 bytes a weight on
    one machine. The defaults are ours. What is learnt is said where the model is used: by ``scalar_head`` a
    scalar, by ``pairwise`` which of two completions is the better one.
    """

    type: Literal["trained"] = "trained"
    start: Annotated[Pretrained, BeforeValidator(_from_text)] | None = None
    """Where the weights come from, its head made anew where there is none; None is the run's initial policy."""
    pairs: str | None = Field(default=None, min_length=1)
    """A file of preference pairs in any form that ``pairs.path`` takes. None has the sandbox label: the completions of
    ``labels`` where that is set, else answers of its own writer."""
    examples: PositiveInt | None = None
    """Labels: rows of the file from its first on, None all of them, or pairs that the sandbox labels."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of prompts that is not trained on and measures ranking accuracy, decided by each prompt's digest as
    ``evaluate.held_out`` is."""
    epochs: PositiveFloat = 1.0
    learning_rate: PositiveFloat = 1e-5
    """Peak rate: it rises over the first twentieth of the steps and falls linearly to zero."""
    weight_decay: NonNegativeFloat = 0.01
    batch_tokens: PositiveInt = 8192
    """Positions of one optimiser step, padding included."""
    seed: NonNegativeInt = 0


RewardModelSource = Annotated[
    Scratch | Pretrained | Trained, Field(discriminator="type"), BeforeValidator(_from_text)
]  # fmt: skip
"""A bare string means ``pretrained``."""
