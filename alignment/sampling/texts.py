"""How feedback on a draft and a better answer are asked for. All texts are ours and can be replaced in a recipe."""

from string import Formatter
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alignment.rendering import conversation, prompt_text
from alignment.types import Message, Prompt, Strategy

_QUOTED = """
[Request]
{question}

[Preference]
{preference}

[Answer]
{draft}
[End of answer]
"""


class OneTurn(Strategy):
    """One user turn that quotes everything, as in Ye & Ng 2024, arXiv:2408.12163; the wording is ours.

    The request that is quoted holds its stated preference already, so the preference is said twice, as it is there. A
    system message stays one, and a goal stays where it is placed, since a policy that was trained under goals is
    undefined without one; of a longer conversation, all turns are quoted.
    """

    type: Literal["one_turn"] = "one_turn"
    ask_feedback: str = (
        "Review the answer below. Say how well it serves the request and the preference, and what should change: a "
        "list of points, each naming the part of the answer it is about. Give no score.\n" + _QUOTED + "\n[Review]"
    )
    ask_refinement: str = (
        "Improve the answer below so that it serves the request and the preference, making use of the review.\n"
        + _QUOTED
        + "\n[Review]\n{feedback}\n[End of review]\n\nWrite the new answer alone, with no word about the old one."
    )
    ask_refinement_unaided: str = (
        "Improve the answer below so that it serves the request and the preference.\n"
        + _QUOTED
        + "\nWrite the new answer alone, with no word about the old one."
    )
    no_preference: str = "None was stated: the answer should be correct, complete and easy to read."
    """What stands for the preference of a prompt that states none."""

    @model_validator(mode="after")
    def _templates(self) -> Self:
        quoted = {"question", "draft"}
        _check(self.ask_feedback, "ask_feedback", quoted)
        _check(self.ask_refinement, "ask_refinement", quoted | {"feedback"})
        _check(self.ask_refinement_unaided, "ask_refinement_unaided", quoted)
        return self

    def feedback(self, prompt: Prompt, draft: str) -> Prompt:
        return self._quoting(self.ask_feedback, prompt, draft=draft)

    def refinement(self, prompt: Prompt, draft: str, feedback: str | None) -> Prompt:
        if feedback is None:
            return self._quoting(self.ask_refinement_unaided, prompt, draft=draft)
        return self._quoting(self.ask_refinement, prompt, draft=draft, feedback=feedback)

    def _quoting(self, template: str, prompt: Prompt, **texts: str) -> Prompt:
        system, asked = _parted(prompt)
        text = template.format(question=prompt_text(asked), preference=prompt.preference or self.no_preference, **texts)
        return Prompt.of((*system, Message(role="user", content=text)), goal=prompt.goal)


class Turns(Strategy):
    """Further turns of the same conversation: the draft as the assistant's own, then what to do with it.

    The default texts are those of the sandbox's refine examples, which a policy trained from scratch there has seen.
    """

    type: Literal["turns"] = "turns"
    ask_feedback: str = Field(default="What should be better?", min_length=1)
    ask_refinement: str = Field(default="Write it again with that in mind.", min_length=1)
    ask_refinement_unaided: str = Field(default="Write it again.", min_length=1)

    def feedback(self, prompt: Prompt, draft: str) -> Prompt:
        return Prompt.of((*conversation(prompt), _said(draft), _asked(self.ask_feedback)))

    def refinement(self, prompt: Prompt, draft: str, feedback: str | None) -> Prompt:
        drafted = (*conversation(prompt), _said(draft))
        if feedback is None:
            return Prompt.of((*drafted, _asked(self.ask_refinement_unaided)))
        return Prompt.of((*drafted, _asked(self.ask_feedback), _said(feedback), _asked(self.ask_refinement)))


RefineTexts = Annotated[OneTurn | Turns, Field(discriminator="type")]


def _parted(prompt: Prompt) -> tuple[tuple[Message, ...], Prompt]:
    """A leading system message, and the prompt without it."""
    if prompt.messages[0].role != "system":
        return (), prompt
    return prompt.messages[:1], prompt.model_copy(update={"messages": prompt.messages[1:]})


def _said(text: str) -> Message:
    return Message(role="assistant", content=text)


def _asked(text: str) -> Message:
    return Message(role="user", content=text)


def _check(template: str, name: str, needed: set[str]) -> None:
    """ValueError, naming the field, for a template that names what there is not or leaves out what it needs."""
    try:
        named = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ValueError(f"{name}: {error}; write a brace as {{{{ or }}}}") from error
    if unknown := named - needed - {"preference"}:
        raise ValueError(f"{name}: nothing is called {sorted(unknown)}; there are {sorted(needed | {'preference'})}")
    if missing := needed - named:
        raise ValueError(f"{name}: {sorted(missing)} must stand in it, in braces")
