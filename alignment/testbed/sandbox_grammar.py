"""The language of the sandbox: its words, its sentences, what a request says and how an answer is read.

Slot words ("basket", "Noah", "Friday") never occur in the fixed part of a sentence, so replacing every slot word by
its slot gives back the sentence's skeleton, and a sentence is well formed when its skeleton is a known one.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple, Self, TypeVar

import numpy as np

from alignment.types import Prompt, Record

T = TypeVar("T")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SLOTS: dict[str, tuple[str, ...]] = {
    "name": _words(
        "Ada Amir Bella Carlos Clara Daniel Elena Felix Grace Hugo Ines Jonas Kira Leo Mara Nils Noah Olga Petra Quinn "
        "Rosa Sami Tara Victor"
    ),
    "event": _words(
        "picnic wedding concert reunion festival parade workshop contest banquet recital auction regatta carnival "
        "lecture rehearsal barbecue"
    ),
    "thing": _words(
        "basket lantern blanket kettle violin ladder candle compass camera umbrella notebook melon teapot tent rope "
        "bucket drum pillow guitar hammer scarf torch whistle saddle trumpet carpet mirror puzzle shovel wagon banner "
        "helmet pepper honey jam cheese pumpkin cushion easel anchor"
    ),
    "place": _words(
        "harbour bridge mill library garden station castle bakery chapel orchard tower fountain museum meadow gate "
        "lighthouse"
    ),
    "day": _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "hour": _words("noon two three four five six seven eight"),
    "weather": _words("sunny rainy windy cloudy warm cold"),
}
SLOT_OF = {word: slot for slot, words in SLOTS.items() for word in words}
KEYWORDS = SLOTS["thing"] + SLOTS["place"]

FORMS = ("note", "message", "letter", "card")
REQUESTS = (
    "Write a {form} to {name} about the {event}. Mention {keywords}.",
    "Please send {name} a {form} about the {event}. Mention {keywords}.",
    "I need a {form} for {name} about the {event} with a word on {keywords}.",
)

WISHES: dict[str, tuple[str, ...]] = {
    "formal": ("Please keep it formal.", "Use a formal tone."),
    "casual": ("Make it casual.", "I want it to sound relaxed."),
    "brief": ("Keep it short.", "At most sixteen words, please."),
    "question": ("End with a question.", "Please close by asking something."),
    "thanks": ("Say thank you.", "Add some words of thanks."),
    "hour": ("Name the hour.", "Say at what time."),
    "day": ("Name the day.", "Say on which day."),
    "weather": ("Say something about the weather.", "Tell them what the weather will be."),
    "excited": ("Sound excited!", "Make it full of joy!"),
    "no_greeting": ("Leave out the greeting.", "Start without a greeting."),
    "three": ("Use exactly three sentences.", "Three sentences, greeting and farewell aside."),
}
"""What a user may state as a preference, and how it is said."""

GREETINGS = {"formal": ("Dear {name}:",), "neutral": ("Hello {name}.",), "casual": ("Hi {name}!", "Hey {name}!")}
CLOSINGS = {
    "formal": ("Kind regards.", "Yours sincerely."),
    "neutral": ("Take care.", "Best wishes."),
    "casual": ("See you soon!", "Bye for now!"),
}

SENTENCES: dict[str, tuple[str, ...]] = {
    "thing": (
        "Please bring the {thing}.",
        "Do not forget the {thing}.",
        "I have packed the {thing}.",
        "The {thing} is ready.",
        "You can borrow the {thing}.",
        "We still need the {thing}.",
    ),
    "place": (
        "We meet at the {place}.",
        "Let us walk to the {place} first.",
        "I will wait near the {place}.",
        "The {place} is not far.",
    ),
    "two_things": (
        "Please bring the {thing} and the {thing}.",
        "I have packed the {thing} and the {thing}.",
        "The {thing} and the {thing} are ready.",
    ),
    "thing_place": ("You will find the {thing} at the {place}.", "I left the {thing} near the {place}."),
    "event": (
        "I look forward to the {event}.",
        "The {event} is almost here.",
        "Everyone talks about the {event}.",
        "I am writing about the {event}.",
    ),
    "event_excited": ("I cannot wait for the {event}!", "What a {event} it will be!"),
    "hour": ("It starts at {hour}.", "Please come at {hour}."),
    "day": ("It is on {day}.", "Keep {day} free."),
    "weather": ("It should be {weather} that day.", "The weather will be {weather}."),
    "thanks": ("Thank you for your help.", "Many thanks for everything."),
    "plain": ("I hope you are well.", "It will be fun.", "I have told the others.", "We have missed you."),
    "question": ("Can you come?", "What do you think?", "Does that suit you?"),
    "excited": ("It will be wonderful!", "I am so happy!"),
}
"""Sentence templates by what they do."""


class Brief(Record):
    """What a request asks for: the ``metadata`` of every sandbox prompt."""

    name: str
    event: str
    keywords: tuple[str, ...]
    wish: str | None = None

    @classmethod
    def of(cls, prompt: Prompt) -> Self:
        """Raises ValueError (pydantic) when the prompt was not written by the sandbox."""
        return cls.model_validate(dict(prompt.metadata))


class Answer(NamedTuple):
    """An answer in parts; a missing greeting or closing is the empty string."""

    greeting: str
    body: tuple[str, ...]
    closing: str

    @property
    def text(self) -> str:
        return " ".join(part for part in (self.greeting, *self.body, self.closing) if part)


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, uniformly."""
    return options[int(rng.integers(len(options)))]


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def tokens_of(text: str) -> list[str]:
    """Words and punctuation marks, in order."""
    return re.findall(r"\w+|[^\w\s]", text)


def skeleton(sentence: str) -> str:
    """The sentence with every slot word replaced by its slot: "Please bring the {thing}."."""
    return re.sub(r"\w+", lambda found: f"{{{SLOT_OF[found[0]]}}}" if found[0] in SLOT_OF else found[0], sentence)


_GREETING_SKELETONS = frozenset(s for several in GREETINGS.values() for s in several)
_CLOSING_SKELETONS = frozenset(s for several in CLOSINGS.values() for s in several)
_BODY_SKELETONS = frozenset(s for several in SENTENCES.values() for s in several)


def is_sentence(sentence: str) -> bool:
    """Whether the grammar could have written it as a sentence of the body."""
    return skeleton(sentence) in _BODY_SKELETONS


def read(text: str) -> Answer:
    """Cut a text into greeting, body and closing.

    Every piece that ends with ``. ! ? :`` is one part, as is a rest without a mark. Only a known greeting at the
    start and a known closing at the end count as such; everything else is body, well formed or not.
    """
    parts = [part.strip() for part in re.findall(r"[^.!?:]*[.!?:]|[^.!?:]+$", text) if part.strip()]
    greeting = parts.pop(0) if parts and skeleton(parts[0]) in _GREETING_SKELETONS else ""
    closing = parts.pop() if parts and skeleton(parts[-1]) in _CLOSING_SKELETONS else ""
    return Answer(greeting, tuple(parts), closing)


def fill(template: str, **values: str) -> str:
    return template.format_map(values)


def listed(keywords: Sequence[str]) -> str:
    """As in "the basket", "the basket and the mill", "the basket, the mill and the rope"."""
    named = [f"the {word}" for word in keywords]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def grammar_texts() -> list[str]:
    """Every fixed text of requests and answers, slots left open."""
    tables = (GREETINGS, CLOSINGS, SENTENCES, WISHES)
    return [*REQUESTS, *(text for table in tables for several in table.values() for text in several)]
