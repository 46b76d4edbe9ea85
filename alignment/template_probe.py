"""Probe (c): what a chat template makes of a conversation is what sampler and trainer take it for."""

from collections.abc import Mapping

from pydantic import JsonValue

from alignment.errors import UserError
from alignment.probes import Evidence, ProbeFailed
from alignment.rendering import (
    ChatTokenizer,
    applied,
    completion_ids,
    conversation,
    encode,
    full_render,
    no_prefix,
    render,
)
from alignment.types import Message, Prompt


def check_template(tokenizer: ChatTokenizer, prompt: Prompt, completion: str) -> None:
    """Probe (c): the prompt's tokens are a prefix of prompt and completion, with one BOS, and EOS at the end.

    ``completion`` should be a plain sentence: one that begins with white space may merge with the prompt's last
    token, which is no fault of the template's. A BOS token that also opens or closes turns is counted only at the
    start; a tokenizer that never begins a text with its BOS may have a template without one. Raises ProbeFailed with
    both renders.
    """
    try:
        prompt_ids = render(tokenizer, prompt)
        full_ids = encode(tokenizer, full_render(tokenizer, prompt, completion))
        if full_ids[: len(prompt_ids)] != prompt_ids:
            raise no_prefix(tokenizer, prompt_ids, full_ids)
        completion_ids(tokenizer, prompt, completion)
        _check_bos(tokenizer, prompt, prompt_ids)
    except UserError as error:
        renders = _evidence(tokenizer, prompt, completion)
        raise ProbeFailed(str(error), Evidence(probe="template", said=str(error), compared=renders)) from error


def _evidence(tokenizer: ChatTokenizer, prompt: Prompt, completion: str) -> tuple[Mapping[str, JsonValue], ...]:
    """The prompt's render and the whole conversation's, as text and tokens, or the template's refusal."""
    answered = (*conversation(prompt), Message(role="assistant", content=completion))
    shown: list[Mapping[str, JsonValue]] = []
    for what, messages in (("prompt", conversation(prompt)), ("prompt and completion", answered)):
        try:
            text = applied(tokenizer, messages, add_generation_prompt=what == "prompt")
        except UserError as refusal:
            shown.append({"render": what, "refused": str(refusal)})
            continue
        shown.append({"render": what, "text": text, "token_ids": [*encode(tokenizer, text)]})
    return tuple(shown)


def _check_bos(tokenizer: ChatTokenizer, prompt: Prompt, prompt_ids: tuple[int, ...]) -> None:
    bos = tokenizer.bos_token_id
    if bos is None:
        return
    opened = encode(tokenizer, applied(tokenizer, conversation(prompt), add_generation_prompt=False))
    opens_turns = bos in prompt_ids[len(opened) :]
    if bos == tokenizer.eos_token_id or opens_turns:
        count = next((i for i, token in enumerate(prompt_ids) if token != bos), len(prompt_ids))
    else:
        count = prompt_ids.count(bos)
    wants_one = tokenizer("a")["input_ids"][0] == bos
    if count > 1 or (count == 0 and wants_one):
        raise UserError(
            f"the chat template gives {count} BOS ({tokenizer.bos_token}) where there should be one: the prompt's "
            f"tokens are {_short_ids(prompt_ids)}. Write {{{{ bos_token }}}} once, at the template's start"
        )


def _short_ids(ids: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, ids[:8]))}{', ...' if len(ids) > 8 else ''}]"
