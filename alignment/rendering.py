"""From a conversation to token ids: the one place where the chat template is applied.

The sampler, the trainer and ``ratchet plan`` all call ``render``, so a prompt has one token list everywhere.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from alignment.errors import UserError
from alignment.types import Goal, Message, Prompt


class ChatTokenizer(Protocol):
    """What is used here of transformers' PreTrainedTokenizerFast, whose own annotations name torch."""

    chat_template: str | None
    bos_token: str | None
    bos_token_id: int | None
    eos_token: str | None
    eos_token_id: int | None

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, verbose: bool = True
    ) -> Mapping[str, list[int]]: ...
    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, add_generation_prompt: bool, tokenize: bool
    ) -> str: ...
    def decode(self, token_ids: list[int]) -> str: ...


def load_tokenizer(folder: Path) -> ChatTokenizer:
    """The tokenizer of a model folder, from its ``tokenizer.json``. Imports no torch.

    Raises UserError where the file, a chat template or an end-of-sequence token is missing.
    """
    from transformers import PreTrainedTokenizerFast  # a second to import, and only users of token ids need it

    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder}: no tokenizer.json. Save a fast tokenizer there: "
            "AutoTokenizer.from_pretrained(model).save_pretrained(folder)"
        )
    try:
        tokenizer = cast(ChatTokenizer, cast(Any, PreTrainedTokenizerFast).from_pretrained(folder))
    except Exception as e:  # the Rust loader raises bare Exception for a file it cannot read
        raise UserError(f"{folder}/tokenizer.json cannot be read: {_one_line(e)}. Save the tokenizer again") from e
    if not tokenizer.chat_template:
        raise UserError(
            f"{folder}: its tokenizer has no chat template. Put one into {folder}/chat_template.jinja; "
            "a base model's own text format needs one too"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{folder}: its tokenizer has no eos_token, so no completion can end. Name it in tokenizer_config.json"
        )
    return tokenizer


def conversation(prompt: Prompt) -> tuple[Message, ...]:
    """The turns as the policy sees them: as ``asked``, with the prompt's goal in front."""
    return asked(prompt) if prompt.goal is None else with_goal(asked(prompt), prompt.goal)


def with_goal(messages: Sequence[Message], goal: Goal) -> tuple[Message, ...]:
    """The goal and a blank line before the system's turn, or before the first user's: where it is placed. Without a
    system's turn, the goal is one."""
    number = next((i for i, m in enumerate(messages) if m.role == goal.placement), None)
    if number is None:
        return (Message(role=goal.placement, content=goal.text), *messages)
    spoken = messages[number].model_copy(update={"content": f"{goal.text}\n\n{messages[number].content}"})
    return (*messages[:number], spoken, *messages[number + 1 :])


def asked(prompt: Prompt) -> tuple[Message, ...]:
    """The turns as people and rewards see them: a stated preference joins the last user message after a blank line,
    and no goal is shown."""
    last = prompt.messages[-1]
    if last.role != "user":
        raise UserError(f"prompt {prompt.id} ends with the {last.role}'s turn; a prompt ends with the user's")
    if prompt.preference is None:
        return prompt.messages
    stated = last.model_copy(update={"content": f"{last.content}\n\n{prompt.preference}"})
    return (*prompt.messages[:-1], stated)


def prompt_text(prompt: Prompt) -> str:
    """A prompt as plain text, for reward models and verifiers that have no chat template; its goal is left out.

    A lone user message is its content; a longer conversation names each speaker.
    """
    messages = asked(prompt)
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{m.role.capitalize()}: {m.content}" for m in messages)


def render(tokenizer: ChatTokenizer, prompt: Prompt) -> tuple[int, ...]:
    """Token ids of a prompt, up to where the assistant's turn begins.

    Raises UserError where the template refuses the conversation or leaves out what the user or the system says.
    """
    return encode(tokenizer, _prompt_render(tokenizer, prompt))


def completion_ids(tokenizer: ChatTokenizer, prompt: Prompt, completion: str) -> tuple[int, ...]:
    """Token ids of an existing completion as the assistant's turn, ending with the only EOS.

    Follow ``render``'s ids with these and the template's render of the whole conversation is there, up to that
    EOS: white space a template adds after it is left out, since a sampler stops at EOS. A template may trim white
    space at the ends of a completion. Where the completion's first characters would merge with the prompt's last
    token, the two are tokenised apart, so every completion of a prompt shares the very same prompt ids.

    Raises UserError where the prompt's render is no prefix of the whole, where the template alters the completion,
    or where EOS does not end it exactly once.
    """
    prompt_render = _prompt_render(tokenizer, prompt)
    whole = full_render(tokenizer, prompt, completion)
    prompt_ids, full_ids = encode(tokenizer, prompt_render), encode(tokenizer, whole)
    if not whole.startswith(prompt_render):
        raise no_prefix(tokenizer, prompt_ids, full_ids)
    turn = whole.removeprefix(prompt_render)
    if completion.strip() not in turn:
        raise UserError(
            f"the chat template turns the completion {_short(completion)} into {_short(turn)}. "
            "Use a template that keeps completions as they are"
        )
    if full_ids[: len(prompt_ids)] == prompt_ids:
        turn_ids = full_ids[len(prompt_ids) :]
    else:
        turn_ids = encode(tokenizer, turn)
        if tokenizer.decode(list(prompt_ids + turn_ids)) != tokenizer.decode(list(full_ids)):
            raise no_prefix(tokenizer, prompt_ids, full_ids)
    return _up_to_eos(tokenizer, turn_ids)


def _prompt_render(tokenizer: ChatTokenizer, prompt: Prompt) -> str:
    messages = conversation(prompt)
    text = applied(tokenizer, messages, add_generation_prompt=True)
    for message in messages:
        # earlier assistant turns may lose their reasoning by design; what is asked may not be lost
        if message.role != "assistant" and message.content.strip() not in text:
            raise UserError(
                f"the chat template leaves out the {message.role}'s {_short(message.content)} of prompt {prompt.id}. "
                "Use a template that takes text content"
            )
    return text


def full_render(tokenizer: ChatTokenizer, prompt: Prompt, completion: str) -> str:
    """The whole conversation as text, as the template writes it."""
    answered = (*conversation(prompt), Message(role="assistant", content=completion))
    return applied(tokenizer, answered, add_generation_prompt=False)


def applied(tokenizer: ChatTokenizer, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    """What the template makes of messages. UserError where it refuses them."""
    from jinja2 import TemplateError  # comes with transformers' templates

    turns = [{"role": m.role, "content": m.content} for m in messages]
    try:
        return tokenizer.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, tokenize=False)
    except (TemplateError, TypeError, ValueError) as e:
        roles = ", ".join(m.role for m in messages)
        raise UserError(
            f"the chat template refuses a conversation of {roles}: {_one_line(e)}. "
            "Change the conversation or the tokenizer's chat template"
        ) from e


def encode(tokenizer: ChatTokenizer, text: str) -> tuple[int, ...]:
    """Token ids of text that a template wrote."""
    # the template has written BOS itself; a length warning would come before the context contract could speak
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _up_to_eos(tokenizer: ChatTokenizer, turn_ids: tuple[int, ...]) -> tuple[int, ...]:
    eos = tokenizer.eos_token_id
    if eos not in turn_ids:
        raise UserError(
            f"no EOS ({tokenizer.eos_token}) after the completion: the chat template renders it as "
            f"{_short(tokenizer.decode(list(turn_ids)))}. Set eos_token in tokenizer_config.json to the token that "
            "ends the assistant's turn"
        )
    end = turn_ids.index(eos) + 1
    if tokenizer.decode(list(turn_ids[end:])).strip():
        raise UserError(
            f"EOS ({tokenizer.eos_token}) stands inside the assistant's turn "
            f"{_short(tokenizer.decode(list(turn_ids)))}, not only at its end. Remove it from the completion, or mend "
            "the chat template"
        )
    return turn_ids[:end]


def no_prefix(tokenizer: ChatTokenizer, prompt_ids: tuple[int, ...], full_ids: tuple[int, ...]) -> UserError:
    """Where the two part, with the tokens of both."""
    both = zip(prompt_ids, full_ids, strict=False)  # the shorter may be a prefix of the longer
    at = next((i for i, (a, b) in enumerate(both) if a != b), min(len(prompt_ids), len(full_ids)))
    ours, theirs = prompt_ids[at : at + 6], full_ids[at : at + 6]
    return UserError(
        f"the chat template's generation prompt is no prefix of the whole conversation: from token {at} on the "
        f"prompt has {list(ours)} {_short(tokenizer.decode(list(ours)))}, prompt and completion have {list(theirs)} "
        f"{_short(tokenizer.decode(list(theirs)))}. Take a template whose assistant turns begin as that prompt ends"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
