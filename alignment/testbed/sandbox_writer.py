"""Writers of uneven care: they draft answers, honour wishes, and slip in the ways small language models do."""

from collections.abc import Callable, Sequence

import numpy as np

from alignment.testbed.sandbox_grammar import (
    CLOSINGS,
    GREETINGS,
    KEYWORDS,
    SENTENCES,
    SLOT_OF,
    SLOTS,
    Answer,
    Brief,
    fill,
    pick,
    tokens_of,
)


def sentence(rng: np.random.Generator, kind: str, brief: Brief) -> str:
    """A sentence of a kind that needs no keyword; hour, day and weather are the writer's own."""
    free = {slot: pick(rng, SLOTS[slot]) for slot in ("hour", "day", "weather")}
    return fill(pick(rng, SENTENCES[kind]), event=brief.event, **free)


def mentions(rng: np.random.Generator, keywords: Sequence[str]) -> list[str]:
    """Sentences that mention the keywords in the order given, now and then two in one sentence."""
    said: list[str] = []
    waiting = list(keywords)
    while waiting:
        slots = [SLOT_OF[word] for word in waiting[:2]]
        together = len(waiting) > 1 and rng.random() < 0.4
        if together and slots == ["thing", "thing"]:
            template = pick(rng, SENTENCES["two_things"])
            said.append(template.replace("{thing}", waiting.pop(0), 1).replace("{thing}", waiting.pop(0), 1))
        elif together and slots == ["thing", "place"]:
            said.append(fill(pick(rng, SENTENCES["thing_place"]), thing=waiting.pop(0), place=waiting.pop(0)))
        else:
            said.append(fill(pick(rng, SENTENCES[slots[0]]), **{slots[0]: waiting.pop(0)}))
    return said


def dressed(rng: np.random.Generator, answer: Answer, tone: str, brief: Brief) -> Answer:
    """The answer with greeting and closing of a tone: formal, neutral or casual."""
    return answer._replace(
        greeting=fill(pick(rng, GREETINGS[tone]), name=brief.name), closing=pick(rng, CLOSINGS[tone])
    )


def honour(rng: np.random.Generator, answer: Answer, brief: Brief) -> Answer:
    """The answer changed to meet the stated wish; as it was when there is none."""
    body = answer.body
    match brief.wish:
        case "formal" | "casual":
            calm = tuple(s for s in body if brief.wish == "casual" or not s.endswith("!"))
            return dressed(rng, answer._replace(body=calm), brief.wish, brief)
        case "brief":
            asked = set(brief.keywords) | {brief.event}
            return answer._replace(body=tuple(s for s in body if asked & set(tokens_of(s)))[:2])
        case "question":
            return answer._replace(body=(*body, sentence(rng, "question", brief)), closing="")
        case "thanks" | "hour" | "day" | "weather":
            return answer._replace(body=(*body, sentence(rng, brief.wish, brief)))
        case "excited":
            joy = (sentence(rng, "event_excited", brief), *body, sentence(rng, "excited", brief))
            return answer._replace(body=joy)
        case "no_greeting":
            return answer._replace(greeting="")
        case "three":
            padding = tuple(sentence(rng, kind, brief) for kind in ("plain", "weather", "day"))
            return answer._replace(body=(*body, *padding)[:3])
        case _:
            return answer


def write(rng: np.random.Generator, brief: Brief, care: float) -> Answer:
    """Draft an answer. ``care`` in [0, 1] scales every chance of doing right: 1 makes no slip but those of chance,
    0 is careless throughout."""

    def heeds(least: float) -> bool:
        return bool(rng.random() < least + (1 - least) * care)

    keywords = [word for word in brief.keywords if heeds(0.35)]
    if not heeds(0.6):
        keywords.insert(int(rng.integers(len(keywords) + 1)), pick(rng, KEYWORDS))
    body = mentions(rng, keywords)
    if heeds(0.5):
        about = brief if heeds(0.7) else brief.model_copy(update={"event": pick(rng, SLOTS["event"])})
        body.insert(0, sentence(rng, "event", about))
    for _ in range(int(rng.integers(3)) if not heeds(0.4) else int(rng.integers(2))):
        body.insert(int(rng.integers(len(body) + 1)), sentence(rng, pick(rng, ("plain", "weather", "thanks")), brief))
    if body and not heeds(0.75):
        body.append(pick(rng, body))
    to = brief if heeds(0.8) else brief.model_copy(update={"name": pick(rng, SLOTS["name"])})
    answer = dressed(rng, Answer("", tuple(body), ""), pick(rng, ("formal", "neutral", "neutral", "casual")), to)
    if not heeds(0.8):
        answer = answer._replace(closing="")
    return honour(rng, answer, brief) if brief.wish and heeds(0.2) else answer


def _drop_word(rng: np.random.Generator, tokens: list[str]) -> list[str]:
    at = int(rng.integers(len(tokens)))
    return tokens[:at] + tokens[at + 1 :]


def _repeat_words(rng: np.random.Generator, tokens: list[str]) -> list[str]:
    at, span = int(rng.integers(len(tokens))), int(rng.integers(1, 7))
    return tokens[: at + span] + tokens[at:]


def _jump(rng: np.random.Generator, tokens: list[str]) -> list[str]:
    """Continue from another place of the same answer, as if two sentences had been spliced."""
    a, b = (int(rng.integers(len(tokens))) for _ in range(2))
    return tokens[: a + 1] + tokens[b:]


def _wrong_word(rng: np.random.Generator, tokens: list[str]) -> list[str]:
    """Another word of the same slot in place of a slot word; unchanged when there is none."""
    places = [i for i, token in enumerate(tokens) if token in SLOT_OF]
    if not places:
        return tokens
    at = pick(rng, places)
    return [*tokens[:at], pick(rng, SLOTS[SLOT_OF[tokens[at]]]), *tokens[at + 1 :]]


def _ramble(rng: np.random.Generator, tokens: list[str]) -> list[str]:
    """One to three more mentions, of keywords already mentioned or of any, each after some sentence."""
    for _ in range(int(rng.integers(1, 4))):
        said = [token for token in tokens if token in KEYWORDS]
        keyword = pick(rng, said) if said and rng.random() < 0.6 else pick(rng, KEYWORDS)
        ends = [i + 1 for i, token in enumerate(tokens) if token in ".!?:"]
        at = pick(rng, ends or [len(tokens)])
        tokens = [*tokens[:at], *tokens_of(mentions(rng, [keyword])[0]), *tokens[at:]]
    return tokens


def _cut(rng: np.random.Generator, tokens: list[str]) -> list[str]:
    return tokens[: int(rng.integers(1, len(tokens) + 1))]


SLIPS: tuple[Callable[[np.random.Generator, list[str]], list[str]], ...] = (
    _drop_word,
    _repeat_words,
    _jump,
    _cut,
    *[_wrong_word] * 4,
    *[_ramble] * 4,
)
"""As often as small policies make them: wrong words and rambling far more often than broken sentences."""


def joined(tokens: Sequence[str]) -> str:
    """Text of tokens: one space before each word, none before a punctuation mark."""
    return "".join(token if not token[0].isalnum() else f" {token}" for token in tokens).strip()


def slip(rng: np.random.Generator, text: str, times: int) -> str:
    """The text with so many slips of the kinds a small model makes; an empty text stays empty."""
    tokens = tokens_of(text)
    for _ in range(times):
        if tokens:
            tokens = pick(rng, SLIPS)(rng, tokens)
    return joined(tokens)
