"""A language of 24 letters, and a policy that writes, criticises and rewrites it from nothing but the conversation.

At each position one letter is right, "g"; every other is a "." here. The last eight positions are right more often when
the prompt states a preference. Asked for feedback, the policy lists positions to rewrite: a wrong one with probability
``spots``, a right one with ``misjudges``. Asked to rewrite, it draws those anew (all that are not kept by chance, where
there is no feedback) and copies the rest. Completion i of a request is drawn with ``seed + i`` and depends on nothing
else, as an engine's is.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from alignment.sampling import Drawn, Generate, Refine, Request, Sampler, Score
from alignment.sampling.texts import Turns
from alignment.types import Candidate, Message, Prompt, seed_of

LENGTH, STATED = 24, 8
TURNS = Turns()
PREFERENCE = "I prefer g."
HOW = Refine(texts=TURNS)


def toy_prompts(count: int, preference: str | None = PREFERENCE) -> list[Prompt]:
    return [Prompt.of((Message(role="user", content=f"toy {i}"),), preference) for i in range(count)]


def gold(text: str) -> float:
    """Ten times the share of right positions."""
    return 10 * text.count("g") / LENGTH


@dataclass
class ToyPolicy:
    """Keeps every request it was asked."""

    spots: float = 0.6
    misjudges: float = 0.15
    keeps: float = 0.8
    truncates: float = 0.0
    """Share of completions cut after 12 letters by the token limit."""
    context: int = 10_000
    """Most characters of all messages together."""
    asked: list[Request] = field(default_factory=list)

    def __call__(self, requests: Sequence[Request]) -> list[list[Candidate]]:
        self.asked += requests
        return [self._answer(r) for r in requests]

    @property
    def drawn(self) -> int:
        """Completions asked for, feedback not counted."""
        return sum(r.n for r in self.asked if not is_feedback_request(r.prompt))

    def _answer(self, request: Request) -> list[Candidate]:
        if sum(len(m.content) for m in request.prompt.messages) > self.context:
            return []
        return [self._one(request.prompt, request.seed + i, i) for i in range(request.n)]

    def _one(self, prompt: Prompt, seed: int, index: int) -> Candidate:
        rng = np.random.default_rng(seed)
        text = self._text(prompt, rng)
        cut = not is_feedback_request(prompt) and rng.random() < self.truncates
        text = text[:12] if cut else text
        ids = tuple(text.encode())
        reason = "length" if cut else "stop"
        return Candidate(index=index, text=text, token_ids=ids, finish_reason=reason, logprob=-float(len(ids)))

    def _text(self, prompt: Prompt, rng: np.random.Generator) -> str:
        said = [m.content for m in prompt.messages]
        stated = prompt.preference or (said[0] if PREFERENCE in said[0] else None)
        fresh = rng.random(LENGTH) < _chances(stated is not None)
        match said:
            case [_]:
                return _letters(fresh)
            case [_, draft, TURNS.ask_feedback]:
                right = _rights(draft)
                flags = rng.random(LENGTH) < np.where(right, self.misjudges, self.spots)
                return "Rewrite " + " ".join(map(str, np.flatnonzero(flags))) + "."
            case [_, draft, TURNS.ask_feedback, feedback, TURNS.ask_refinement]:
                flagged = np.zeros(LENGTH, dtype=bool)
                flagged[[int(word.rstrip(".")) for word in feedback.split()[1:] if word != "."]] = True
                return _letters(np.where(flagged | (rng.random(LENGTH) < 0.05), fresh, _rights(draft)))
            case [_, draft, TURNS.ask_refinement_unaided]:
                return _letters(np.where(rng.random(LENGTH) > self.keeps, fresh, _rights(draft)))
            case _:
                raise AssertionError(f"no such conversation in this language: {said}")


def is_feedback_request(prompt: Prompt) -> bool:
    return prompt.messages[-1].content == TURNS.ask_feedback


def _chances(stated: bool) -> np.ndarray:
    chances = np.full(LENGTH, 0.35)
    chances[-STATED:] = 0.30 if stated else 1 / 8
    return chances


def _letters(right: np.ndarray) -> str:
    return "".join("g" if r else "." for r in right)


def _rights(text: str) -> np.ndarray:
    return np.array([letter == "g" for letter in text.ljust(LENGTH, ".")[:LENGTH]])


@dataclass
class ToyScore:
    """Gold with Gaussian noise that depends on prompt and text alone; what ``fails`` names has no score."""

    noise: float = 0.0
    shift: float = 0.0
    fails: frozenset[str] = frozenset()
    seen: list[tuple[Prompt, tuple[str, ...]]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> list[Mapping[str, list[float | None]]]:
        with self._lock:
            self.seen += [(p, tuple(t)) for p, t in zip(prompts, texts, strict=True)]
        return [{"reward": [self.one(p, text) for text in texts_G]} for p, texts_G in zip(prompts, texts, strict=True)]

    def one(self, prompt: Prompt, text: str) -> float | None:
        if text in self.fails:
            return None
        noise = np.random.default_rng(seed_of(prompt.id, text)).standard_normal() if self.noise else 0.0
        return gold(text) + self.shift + self.noise * noise


def saying(texts: list[str], better: str = "better", feedback: str = "Hm.") -> Generate:
    """A policy that drafts these texts, refines to ``better`` and says ``feedback``."""

    def generate(requests):
        answers = []
        for r in requests:
            said = texts if len(r.prompt.messages) == 1 else [better] * r.n
            said = [feedback] * r.n if is_feedback_request(r.prompt) else said
            answers.append(
                [
                    Candidate(index=i, text=said[i % len(said)], token_ids=(1, 2), finish_reason="stop", logprob=-1.0)
                    for i in range(r.n)
                ]
            )
        return answers

    return generate


def best_of(candidates: Sequence[Candidate]) -> int:
    """Index of the highest gold, the first of equals."""
    return int(np.argmax([gold(c.text) for c in candidates]))


def drawn(
    sampler: Sampler,
    prompts: Sequence[Prompt],
    policy: Generate | None = None,
    score: Score | None = None,
    seed: tuple[int, ...] = (0, 0),
) -> list[Drawn]:
    return sampler(prompts, policy or ToyPolicy(), score or ToyScore(), seed=seed)
