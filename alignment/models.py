"""Where a policy or a reward model comes from."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

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
