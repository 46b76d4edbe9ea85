"""The sandbox: readable requests and answers in English from a small grammar, with a gold reward hidden from training.

A request asks for a short note to someone about an event with two to four things to mention, often with a stated
preference. Demonstrations are written with uneven care, labels are noisy comparisons, refine examples come from a
reviewer of its own: no training signal but the labels depends on the gold reward. Everything is drawn from the
world's seed; a longer list of a kind begins with the shorter one.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from alignment.testbed.sandbox_gold import gold, gold_attributes
from alignment.testbed.sandbox_grammar import (
    FORMS,
    KEYWORDS,
    REQUESTS,
    SLOTS,
    WISHES,
    Brief,
    fill,
    grammar_texts,
    listed,
    pick,
    tokens_of,
)
from alignment.testbed.sandbox_refine import ASK_FEEDBACK, ASK_REFINEMENT, faults, feedback, refine, refine_texts
from alignment.testbed.sandbox_writer import slip, write
from alignment.types import Message, Prompt, seed_of
from alignment.worlds import Demonstration, LabelledPair, Sandbox

__all__ = [
    "compared",
    "demonstrations",
    "gold",
    "gold_attributes",
    "label_prompts",
    "labelled_pairs",
    "prompts",
    "refinements",
    "vocabulary",
]

WISHING = 0.6
"""Share of requests with a stated preference."""
CARE = (1.6, 1.8)
"""Beta distribution of a demonstration's care."""


def _rng(world: Sandbox, purpose: str) -> np.random.Generator:
    return np.random.default_rng(seed_of("sandbox", purpose, world.seed))


def _request(rng: np.random.Generator) -> Prompt:
    count = 2 + int(rng.choice(3, p=(0.45, 0.35, 0.2)))
    keywords = tuple(KEYWORDS[int(i)] for i in rng.permutation(len(KEYWORDS))[:count])
    wish = pick(rng, tuple(WISHES)) if rng.random() < WISHING else None
    brief = Brief(name=pick(rng, SLOTS["name"]), event=pick(rng, SLOTS["event"]), keywords=keywords, wish=wish)
    text = fill(
        pick(rng, REQUESTS), form=pick(rng, FORMS), name=brief.name, event=brief.event, keywords=listed(keywords)
    )
    preference = pick(rng, WISHES[wish]) if wish else None
    return Prompt.of((Message(role="user", content=text),), preference, brief.model_dump(mode="json"))


def _requests(rng: np.random.Generator) -> Iterator[Prompt]:
    """Distinct requests without end."""
    seen: set[str] = set()
    while True:
        prompt = _request(rng)
        if prompt.id not in seen:
            seen.add(prompt.id)
            yield prompt


def prompts(world: Sandbox, count: int) -> list[Prompt]:
    """``count`` distinct requests; what gold needs to know of them is in their metadata."""
    requests = _requests(_rng(world, "prompts"))
    return [next(requests) for _ in range(count)]


def _turns(prompt: Prompt) -> tuple[Message, ...]:
    """The request as one user turn, its preference joined by a blank line as for any prompt."""
    text = prompt.messages[-1].content
    return (Message(role="user", content=f"{text}\n\n{prompt.preference}" if prompt.preference else text),)


def demonstrations(world: Sandbox, count: int) -> list[Demonstration]:
    """``count`` requests with an answer of uneven care, to imitate."""
    rng = _rng(world, "demonstrations")
    return [_demonstration(rng, refining=False) for _ in range(count)]


def refinements(world: Sandbox, count: int) -> list[Demonstration]:
    """``count`` conversations of request, draft, feedback and better answer."""
    rng = _rng(world, "refinements")
    return [_demonstration(rng, refining=True) for _ in range(count)]


def _demonstration(rng: np.random.Generator, *, refining: bool) -> Demonstration:
    prompt = _request(rng)
    brief = Brief.of(prompt)
    draft = write(rng, brief, float(rng.beta(*CARE)))
    messages = (*_turns(prompt), Message(role="assistant", content=draft.text))
    if not refining:
        return Demonstration(messages=messages)
    named = faults(rng, brief, draft)
    turns = (ASK_FEEDBACK, feedback(brief, named), ASK_REFINEMENT, refine(rng, brief, draft, named).text)
    roles = ("user", "assistant", "user", "assistant")
    told = tuple(Message(role=role, content=content) for role, content in zip(roles, turns, strict=True))
    return Demonstration(messages=messages + told)


def labelled_pairs(world: Sandbox, count: int) -> list[LabelledPair]:
    """``count`` comparisons of two answers to one request by a noisy labeller.

    P(a preferred to b) = sigmoid((gold a - gold b) / ``world.label_noise``). Answers come from the demonstrations'
    writer with care spread evenly, most with slips like a small policy's; in half of the pairs one answer is
    the other with slips, so that single faults are compared too. The two texts of a pair differ.
    """
    rng = _rng(world, "labels")
    pairs: list[LabelledPair] = []
    while len(pairs) < count:
        prompt = _request(rng)
        a, b = _two_answers(rng, Brief.of(prompt))
        if a != b:
            pairs.append(_labelled(rng, prompt, a, b, world.label_noise))
    return pairs


def label_prompts(world: Sandbox, count: int) -> list[Prompt]:
    """``count`` distinct requests for ``compared``: a stream of their own, so that no run is evaluated on them."""
    requests = _requests(_rng(world, "label prompts"))
    return [next(requests) for _ in range(count)]


def compared(world: Sandbox, prompt: Prompt, completions: Sequence[str]) -> list[LabelledPair]:
    """Every two different completions of one request, compared by the labeller of ``labelled_pairs``.

    What a request yields depends on it, on the completions and on the world's seed alone.
    """
    rng = np.random.default_rng(seed_of("sandbox", "compared", world.seed, prompt.id))
    couples = [(a, b) for a, b in itertools.combinations(completions, 2) if a != b]
    return [_labelled(rng, prompt, a, b, world.label_noise) for a, b in couples]


def _two_answers(rng: np.random.Generator, brief: Brief) -> tuple[str, str]:
    a = _answer(rng, brief)
    b = slip(rng, a, int(rng.integers(1, 3))) if rng.random() < 1 / 2 else _answer(rng, brief)
    return a, b


def _answer(rng: np.random.Generator, brief: Brief) -> str:
    return slip(rng, write(rng, brief, float(rng.random())).text, int(rng.choice(3, p=(0.65, 0.25, 0.1))))


def _labelled(rng: np.random.Generator, prompt: Prompt, a: str, b: str, noise: float) -> LabelledPair:
    prefers_a = (1 + math.tanh((gold(prompt, a) - gold(prompt, b)) / (2 * noise))) / 2  # sigmoid, without overflow
    chosen, rejected = (a, b) if rng.random() < prefers_a else (b, a)
    return LabelledPair(prompt=prompt, chosen=chosen, rejected=rejected)


def vocabulary() -> list[str]:
    """Every word and punctuation mark the world can write, sorted: the tokens of a word-level tokenizer."""
    slots = {word for words in SLOTS.values() for word in words}
    slot_names = {f"{{{name}}}" for name in (*SLOTS, "form", "keywords")}
    fixed = " ".join([*grammar_texts(), *refine_texts(), *FORMS, listed(["", "", ""])])
    for name in slot_names:
        fixed = fixed.replace(name, " ")
    return sorted(slots | set(tokens_of(fixed)))
