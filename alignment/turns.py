"""Conversations as people store them: message lists, ShareGPT turns and transcripts, read into ``Message``s."""

import re
from collections.abc import Mapping
from itertools import pairwise

from pydantic import JsonValue

from alignment.types import Message

Row = Mapping[str, JsonValue]
Turns = tuple[Message, ...]

_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


class RowError(ValueError):
    """Why a row is no prompt or no pair."""


def kind_of(value: JsonValue) -> str:
    """What a JSON value is, in words."""
    match value:
        case str():
            return "text"
        case bool():
            return "true or false"
        case None:
            return "null"
        case float() if value != value:
            return "NaN"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"


def text_at(value: JsonValue, at: str) -> str:
    """The text itself. RowError where it is no text, or blank."""
    if not isinstance(value, str):
        raise RowError(f"{at} is {kind_of(value)}, expected text")
    if not value.strip():
        raise RowError(f"{at} is empty")
    return value


def message_at(value: JsonValue, at: str) -> Message:
    """One turn: ``role`` and ``content``, or ``from`` and ``value``."""
    if not isinstance(value, dict):
        raise RowError(f"{at} is {kind_of(value)}, expected a message with role and content")
    speaker, content = ("from", "value") if "from" in value else ("role", "content")
    role = value.get(speaker)
    if not isinstance(role, str) or role not in _ROLES:
        raise RowError(f"{at} has {speaker} {role!r}, expected one of {', '.join(_ROLES)}")
    return Message.model_validate({"role": _ROLES[role], "content": text_at(value.get(content), f"{at}.{content}")})


def messages_at(value: JsonValue, at: str) -> Turns:
    """A list of turns, at least one; their order is not checked here."""
    if not isinstance(value, list) or not value:
        raise RowError(f"{at} is {'empty' if value == [] else kind_of(value)}, expected a list of messages")
    return tuple(message_at(item, f"{at}[{number}]") for number, item in enumerate(value))


def is_transcript(text: str) -> bool:
    return _SPEAKER.match(text) is not None


def transcript(text: str, at: str) -> Turns:
    """The turns of ``\\n\\nHuman: … \\n\\nAssistant: …``, the form of Anthropic's HH data (Bai et al. 2022,
    arXiv:2204.05862). White space around a turn belongs to the form. A last assistant turn without text is left
    out: a transcript that ends so is a prompt."""
    if not is_transcript(text):
        raise RowError(f"{at} does not begin with a blank line and 'Human:'")
    _, *parts = _SPEAKER.split(text)
    turns = list(zip(parts[::2], parts[1::2], strict=True))
    if turns[-1][0] == "Assistant" and not turns[-1][1].strip():
        turns.pop()
    return tuple(
        Message(role="user" if speaker == "Human" else "assistant", content=text_at(said.strip(), f"{at}, turn {turn}"))
        for turn, (speaker, said) in enumerate(turns, start=1)
    )


def check_turns(turns: Turns, at: str) -> None:
    """System first if at all, then user and assistant in turn, the user beginning and ending. RowError otherwise."""
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    if not spoken:
        raise RowError(f"{at} has no user's turn")
    if spoken[0].role == "assistant":
        raise RowError(f"{at} begins with the assistant's turn, a conversation begins with the user's")
    for number, (before, message) in enumerate(pairwise(turns), start=2):
        if message.role == "system":
            raise RowError(f"{at}: turn {number} is the system's, which may only come first")
        if message.role == before.role:
            raise RowError(f"{at}: turns {number - 1} and {number} are both the {message.role}'s")
    if spoken[-1].role == "assistant":
        raise RowError(f"{at} ends with the assistant's turn, a prompt ends with the user's")
