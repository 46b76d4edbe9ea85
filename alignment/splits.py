"""Train and held-out prompts: decided by each prompt itself, once and for good."""

from collections.abc import Sequence

from alignment.errors import UserError
from alignment.types import Prompt, digest_of


def split_held_out(
    prompts: Sequence[Prompt], share: float, *, field: str = "evaluate.held_out"
) -> tuple[list[Prompt], list[Prompt]]:
    """Train and held-out prompts, each in the given order.

    A prompt is held out when the digest of its messages, read as a number in [0, 1), is below ``share`` in (0, 1).
    So neither order nor other prompts move it, a larger share only adds to a smaller one, and one request under
    several stated preferences stays on one side. The held-out part is ``share`` in expectation, not exactly.
    Raises UserError where either part would be empty; ``field`` is what it says to change.
    """
    train = [prompt for prompt in prompts if _place(prompt) >= share]
    held_out = [prompt for prompt in prompts if _place(prompt) < share]
    if not train or not held_out:
        empty, change = ("train on", "lower") if not train else ("hold out", "raise")
        raise UserError(
            f"{len(prompts)} prompts and {field} = {share} leave none to {empty}: "
            f"give more prompts, or {change} {field}"
        )
    return train, held_out


def _place(prompt: Prompt) -> float:
    digest = digest_of({"held_out": [message.model_dump() for message in prompt.messages]})
    return int(digest[:13], 16) / 16**13  # 52 bits, which a float holds exactly
