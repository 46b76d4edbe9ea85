"""Prompts and preference pairs in the shapes people have them in: one row of a file at a time, no I/O.

A file's shape is told from the names and kinds of a row's fields; a row of another shape is an error. Fields that a
shape does not use become the prompt's metadata.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Generic, Literal, NamedTuple, TypeVar

from pydantic import JsonValue

from alignment.pair_rows import LabelledRow, PairRow
from alignment.turns import (
    Row,
    RowError,
    Turns,
    check_turns,
    is_transcript,
    kind_of,
    message_at,
    messages_at,
    text_at,
    transcript,
)
from alignment.types import Message, Prompt, canonical_json

Kind = Literal["text", "a list", "an object", "a number", "true or false"]
Content = TypeVar("Content", covariant=True)


class Compared(NamedTuple):
    prompt: Turns
    chosen: str
    rejected: str


class Labelled(NamedTuple):
    prompt: Turns
    completion: str
    label: bool


class RowFormat(NamedTuple, Generic[Content]):
    """A shape of row, and how its content is found in it."""

    fields: Mapping[str, Kind]
    parse: Callable[[Row], Content]

    @property
    def uses(self) -> frozenset[str]:
        """Fields that are not metadata, some of them optional."""
        beside = ("preference", "system", *(_ABOUT if "instruction" in self.fields else ()))
        return frozenset((*self.fields, *beside, *(_SCORES if "chosen" in self.fields else ())))

    @property
    def name(self) -> str:
        return ", ".join(f"{field} ({kind})" for field, kind in self.fields.items())

    def fits(self, row: Row) -> bool:
        return all(field in row and kind_of(row[field]) == kind for field, kind in self.fields.items())

    def content(self, row: Row) -> Content:
        """What the row says. RowError where it is of another shape."""
        for field, kind in self.fields.items():
            if field not in row:
                raise RowError(f"no {field!r}")
            if kind_of(row[field]) != kind:
                raise RowError(f"{field} is {kind_of(row[field])}, expected {kind}")
        return self.parse(row)


def prompt_format(row: Row) -> RowFormat[Turns] | None:
    """The shape of a row that holds a prompt; None if it is none of ``PROMPT_FORMATS``."""
    return next((known for known in PROMPT_FORMATS if known.fits(row)), None)


def pair_format(row: Row) -> RowFormat[Compared | Labelled] | None:
    """The shape of a row that holds a pair or a label; None if it is none of ``PAIR_FORMATS``."""
    return next((known for known in PAIR_FORMATS if known.fits(row)), None)


def prompt_of(known: RowFormat[Turns], row: Row) -> Prompt:
    """The row's prompt. RowError says what is wrong with the row."""
    return _prompt(known.content(row), row, known.uses)


def pair_of(known: RowFormat[Compared | Labelled], row: Row) -> PairRow | LabelledRow:
    """The row's pair or label. RowError says what is wrong with the row, such as two equal completions."""
    match known.content(row):
        case Compared(turns, chosen, rejected):
            if chosen.strip() == rejected.strip():
                raise RowError("chosen and rejected are the same")
            scores = {field: _score(row, field) for field in _SCORES} if "chosen" in known.fields else {}
            return PairRow(prompt=_prompt(turns, row, known.uses), chosen=chosen, rejected=rejected, **scores)
        case Labelled(turns, completion, label):
            return LabelledRow(prompt=_prompt(turns, row, known.uses), completion=completion, label=label)


def _score(row: Row, field: str) -> float | None:
    value = row.get(field)
    if value is None or kind_of(value) == "a number":
        return value if value is None else float(str(value))
    raise RowError(f"{field} is {kind_of(value)}, expected a number")


def _prompt(turns: Turns, row: Row, used: frozenset[str]) -> Prompt:
    check_turns(turns, "the prompt")
    preference = row.get("preference")
    if preference is not None:
        preference = text_at(preference, "preference")
    metadata = {field: value for field, value in row.items() if field not in used}
    for field, value in row.items():
        try:
            canonical_json(value).encode()
        except (TypeError, ValueError) as e:  # NaN, dates and bytes from Parquet, half a surrogate pair from JSON
            raise RowError(f"{field} holds what JSON and UTF-8 cannot: {e}") from e
    return Prompt.of(turns, preference, metadata)


def _asked(row: Row, field: str) -> Turns:
    """The prompt's turns, with a system message beside it and the text an instruction is about."""
    value = row[field]
    if isinstance(value, str):
        turns = transcript(value, field) if is_transcript(value) else (_user(row, field),)
    else:
        turns = messages_at(value, field)
    if not row.get("system"):
        return turns
    return (Message(role="system", content=text_at(row["system"], "system")), *turns)


def _user(row: Row, field: str) -> Message:
    about = [text_at(row[extra], extra) for extra in _ABOUT if field == "instruction" and row.get(extra)]
    return Message(role="user", content="\n\n".join([text_at(row[field], field), *about]))


def _compared(row: Row, prompt: str | None, chosen: str = "chosen", rejected: str = "rejected") -> Compared:
    asked = _asked(row, prompt) if prompt else ()
    better, worse = (_conversation(asked, row[side], side) for side in (chosen, rejected))
    if better[:-1] != worse[:-1]:
        raise RowError(f"{chosen} and {rejected} differ before their last turn")
    return Compared(better[:-1], better[-1].content, worse[-1].content)


def _conversation(asked: Turns, value: JsonValue, side: str) -> Turns:
    """The prompt and one completion, whichever way the completion is given."""
    match value:
        case str() if asked:
            turns: Turns = (Message(role="assistant", content=text_at(value, side)),)
        case str():
            turns = transcript(value, side)
            if turns[-1].role == "user":
                raise RowError(f"{side} has an empty completion")
        case list():
            turns = messages_at(value, side)
        case _:
            turns = (message_at(value, side),)
    if turns[-1].role != "assistant":
        raise RowError(f"{side} ends with the {turns[-1].role}'s turn, not with a completion")
    if not asked or turns[0].role == "assistant":
        return (*asked, *turns)
    if asked[-1] not in turns:
        raise RowError(f"{side} does not contain the prompt")
    return turns


def _by_number(row: Row) -> Compared:
    """LLMBar (Zeng et al. 2024, arXiv:2310.07641): ``label`` is the number of the better output."""
    outputs = {n: text_at(row[f"output_{n}"], f"output_{n}") for n in (1, 2)}
    better = row["label"]
    if better not in (1, 2):
        raise RowError(f"label is {better}, expected 1 or 2")
    asked = (Message(role="user", content=text_at(row["input"], "input")),)
    return Compared(asked, outputs[1 if better == 1 else 2], outputs[2 if better == 1 else 1])


def _labelled(row: Row, prompt: str) -> Labelled:
    turns = _asked(row, prompt)
    if "completion" in row and prompt != "messages":
        turns = _conversation(turns, row["completion"], "completion")
    if turns[-1].role != "assistant":
        raise RowError(f"{prompt} ends with the {turns[-1].role}'s turn, not with a completion")
    return Labelled(turns[:-1], turns[-1].content, row["label"] is True)


_ABOUT = ("input", "context")
"""What an instruction may be about, in Alpaca's and in Dolly's word."""
_SCORES = ("score_chosen", "score_rejected")
"""What somebody gave the two completions, in the words of UltraFeedback's binarised form."""
_PROMPTS: tuple[tuple[str, Kind], ...] = (
    ("prompt", "text"),
    ("prompt", "a list"),
    ("messages", "a list"),
    ("conversations", "a list"),
    ("instruction", "text"),
    ("question", "text"),
)
_ANSWERS: tuple[Kind, ...] = ("text", "an object", "a list")

PROMPT_FORMATS: tuple[RowFormat[Turns], ...] = tuple(
    RowFormat({field: kind}, partial(_asked, field=field)) for field, kind in _PROMPTS
)
PAIR_FORMATS: tuple[RowFormat[Compared | Labelled], ...] = (
    RowFormat({"input": "text", "output_1": "text", "output_2": "text", "label": "a number"}, _by_number),
    *(
        RowFormat(
            {"question": "text", good: "text", bad: "text"},
            partial(_compared, prompt="question", chosen=good, rejected=bad),
        )
        for good, bad in (("response_j", "response_k"), ("answer_matching_behavior", "answer_not_matching_behavior"))
    ),
    *(
        RowFormat({field: kind, "chosen": answer, "rejected": answer}, partial(_compared, prompt=field))
        for answer in _ANSWERS
        for field, kind in _PROMPTS
    ),
    *(RowFormat({"chosen": kind, "rejected": kind}, partial(_compared, prompt=None)) for kind in ("a list", "text")),
    RowFormat({"messages": "a list", "label": "true or false"}, partial(_labelled, prompt="messages")),
    *(
        RowFormat({field: kind, "completion": answer, "label": "true or false"}, partial(_labelled, prompt=field))
        for answer in _ANSWERS
        for field, kind in _PROMPTS
        if field != "messages"
    ),
)
