"""Prompts with labelled completions, as small as they come."""

from collections.abc import Sequence
from pathlib import Path

from alignment.rendering import completion_ids, load_tokenizer, render
from alignment.types import Candidate, Group, Message, PreferencePair, Prompt
from infra.reward_objectives import Question

WORDS = ("weather", "garden", "letter", "party")


def question(folder: Path, number: int, texts: Sequence[str], pairs: Sequence[tuple[int, int]] = ((0, 1),)) -> Question:
    tokenizer = load_tokenizer(folder)
    prompt = Prompt.of((Message(role="user", content=f"Write note {number}."),))
    candidates = tuple(
        Candidate(index=i, text=text, token_ids=completion_ids(tokenizer, prompt, text), finish_reason="stop")
        for i, text in enumerate(texts)
    )
    group = Group(prompt=prompt, prompt_ids=render(tokenizer, prompt), candidates=candidates)
    labels = tuple(PreferencePair(prompt_id=prompt.id, chosen=a, rejected=b, source="t") for a, b in pairs)
    return Question(group, labels, folder)


def thanks(folder: Path, count: int) -> list[Question]:
    """Whoever says thank you is preferred, in three pairs of three completions."""
    return [
        question(folder, i, (f"Thank you for the {WORDS[i % 4]}.", "No.", f"The {WORDS[i % 4]}."), ((0, 1), (0, 2)))
        for i in range(count)
    ]
