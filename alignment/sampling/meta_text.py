"""Refinements that speak of being refinements, told apart before anything is scored."""

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator

from alignment.types import Strategy


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]

_NEW = r"(?:revised|improved|updated|corrected|rewritten|refined|better|new)"
_ANSWER = r"(?:answer|response|version|revision|rewrite|draft)"
_OLD = r"(?:previous|original|earlier|first|last|old)"


class Cleaned(NamedTuple):
    text: str
    objection: str | None
    """Why the refinement is set aside; None for one that goes on."""


class MetaText(Strategy):
    """What becomes of text like "Sure, here is the improved answer:", which a policy would learn from its own data.

    Ye & Ng 2024, arXiv:2408.12163, ask for it not to be written and keep it when it is. What to do with it is ours.
    """

    action: Literal["strip", "set_aside", "keep"] = "strip"
    """``strip`` cuts an opening and sets aside what mentions the draft or the review further on; ``set_aside`` sets
    both aside: the completion counts as spent, is neither scored nor stored, and the group says why."""
    opening: Pattern = (
        r"\s*(?:(?:sure|certainly|of course|okay|absolutely)\b[,.!:]?\s*)?"
        r"(?:(?:here(?:'s| is)|below is|this is)\s[^.\n:]{0,80}\b" + _ANSWER + r"\b[^.\n:]{0,60}[.:\n]"
        r"|[#*\s]{0,4}" + _NEW + r" " + _ANSWER + r"\**[:\n]\**)\s*"
    )
    """At the start of the text, whatever its case."""
    mention: Pattern = (
        r"\b(?:the|your|this) (?:feedback|review)\b"
        r"|\b(?:the|my|your) " + _OLD + r" " + _ANSWER + r"\b"
        r"|\b" + _NEW + r" (?:answer|response|version)\b"
    )
    """Anywhere, whatever its case; words that the prompt itself uses are no sign."""

    def cleaned(self, text: str, prompt: str) -> Cleaned:
        """A refinement as it goes on, or why it does not. An objection quotes what was found."""
        if self.action == "keep":
            return Cleaned(text, None)
        opening = re.match(self.opening, text, re.IGNORECASE)
        if opening and self.action == "set_aside":
            return Cleaned(text, _speaks(opening[0]))
        rest = text[opening.end() :] if opening else text
        if opening and not rest.strip():
            return Cleaned(text, f"nothing follows {opening[0].strip()!r}")
        for mention in re.finditer(self.mention, rest, re.IGNORECASE):
            if mention[0].casefold() not in prompt.casefold():
                return Cleaned(text, _speaks(mention[0]))
        return Cleaned(rest, None)


def _speaks(found: str) -> str:
    return f"it speaks of its task: {found.strip()!r}"
