"""Refine examples: a draft, what a hasty reviewer says of it, and the draft with only that mended.

The reviewer reads request and draft by rough signs of its own and never sees the gold reward: it looks at one missing
keyword at a time, judges length by counting sentences, takes any question mark for a closing question, overlooks some
faults and names at most two. What it does not name is kept, so a bad draft gives a bad refinement.
"""

import numpy as np

from alignment.testbed.sandbox_grammar import Answer, Brief, tokens_of
from alignment.testbed.sandbox_writer import honour, mentions, sentence

ASK_FEEDBACK = "What should be better?"
ASK_REFINEMENT = "Write it again with that in mind."
FINE = "It is fine."

_FEEDBACK = {
    "event": "Say that it is about the {event}.",
    "again": "Do not say things twice.",
    "long": "It is too long.",
    "wish": "Remember the wish.",
}
OVERLOOKED = 0.15
"""Chance that a fault is not seen."""
MANY_SENTENCES = 5


def _wish_looks_met(wish: str, answer: Answer) -> bool:
    """By one rough sign each."""
    text = answer.text
    signs = {"formal": "Dear", "casual": "!", "question": "?", "thanks": "hank", "hour": " at ", "day": "day"}
    match wish:
        case "brief":
            return len(answer.body) <= 2
        case "weather":
            return "be" in tokens_of(text)
        case "excited":
            return "!" in text
        case "no_greeting":
            return not answer.greeting
        case "three":
            return text.count(".") in (3, 4, 5)
        case _:
            return signs[wish] in text


def faults(rng: np.random.Generator, brief: Brief, draft: Answer) -> list[str]:
    """What the reviewer names, at most two of: a missing keyword, "event", "again", "long", "wish"."""
    tokens = tokens_of(draft.text)
    seen = [word for word in brief.keywords if word not in tokens][:1]
    seen += ["event"] * (brief.event not in tokens)
    seen += ["again"] * any(a == b for a, b in zip(draft.body, draft.body[1:], strict=False))
    seen += ["long"] * (len(draft.body) > MANY_SENTENCES)
    seen += ["wish"] * (brief.wish is not None and not _wish_looks_met(brief.wish, draft))
    return [fault for fault in seen if rng.random() >= OVERLOOKED][:2]


def feedback(brief: Brief, named: list[str]) -> str:
    """The faults in words; FINE when there are none."""
    said = [_FEEDBACK.get(fault, f"Mention the {fault}.").format(event=brief.event) for fault in named]
    return " ".join(said) or FINE


def refine(rng: np.random.Generator, brief: Brief, draft: Answer, named: list[str]) -> Answer:
    """The draft with the named faults mended and everything else kept; the draft itself when none is named."""
    for fault in named:
        match fault:
            case "event":
                draft = draft._replace(body=(sentence(rng, "event", brief), *draft.body))
            case "again":
                draft = draft._replace(body=tuple(dict.fromkeys(draft.body)))
            case "long":
                draft = draft._replace(body=draft.body[:MANY_SENTENCES])
            case "wish":
                draft = honour(rng, draft, brief)
            case keyword:
                draft = draft._replace(body=(*draft.body, *mentions(rng, [keyword])))
    return draft


def refine_texts() -> list[str]:
    """Every fixed text of feedback and of the turns that ask for it, for the vocabulary."""
    return [ASK_FEEDBACK, ASK_REFINEMENT, FINE, *_FEEDBACK.values()]
