"""Worlds: where prompts, demonstrations and preference labels come from when there is no data set.

A world is described here, written by ``alignment.testbed`` and opened by ``infra.worlds``.
"""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from alignment.types import Message, Prompt, Record, Strategy


class Demonstration(Record):
    """A conversation to imitate: every assistant turn is trained on."""

    messages: tuple[Message, ...]


class LabelledPair(Record):
    """Two completions of a prompt, the first preferred by a noisy labeller."""

    prompt: Prompt
    chosen: str
    rejected: str


class Sandbox(Strategy):
    """Requests in English made by a grammar, with a gold reward hidden from training."""

    type: Literal["sandbox"] = "sandbox"
    seed: NonNegativeInt = 0
    label_noise: PositiveFloat = 0.6
    """Temperature of the labeller: P(prefer a) = sigmoid((gold a - gold b) / label_noise)."""
    refine_share: float = Field(default=0.0, ge=0, le=1, exclude_if=lambda share: share == 0)
    """Share of a policy's demonstrations that go on to feedback and a better answer, so that it can refine. Left out of
    the world's identity at 0, so that policies made before there was one are still found."""


class Sentences(Strategy):
    """Sentences of two classes: a zip with one text file each, one sentence a line.

    The policy imitates the sentences, prompts are the first words of held-out ones, and the labels prefer a
    sentence of the positive class to one of the negative class.
    """

    type: Literal["sentences"] = "sentences"
    path: str
    positive: str = "*.pos"
    negative: str = "*.neg"
    """Name patterns of the two members of the zip."""
    prompt_words: PositiveInt = 4
    vocabulary: PositiveInt = 1024
    """Size of the byte-level BPE tokenizer trained on the sentences."""


class Preferences(Strategy):
    """A file of preference pairs: the policy imitates the chosen completions of the prompts that are trained on, and
    the pairs are the labels."""

    type: Literal["preferences"] = "preferences"
    path: str
    vocabulary: PositiveInt = 1024
    """Size of the byte-level BPE tokenizer trained on the conversations."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of prompts that is kept out, decided by each prompt's digest, as ``evaluate.held_out`` does."""
    skip_bad_rows: bool = False


World = Annotated[Sandbox | Sentences | Preferences, Field(discriminator="type")]
