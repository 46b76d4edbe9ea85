"""What an opened world gives."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from alignment.types import Prompt
from alignment.worlds import Demonstration, LabelledPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class OpenWorld(NamedTuple):
    """The three lists take how many to make; the tokenizer takes the context it is for."""

    prompts: Callable[[int], list[Prompt]]
    demonstrations: Callable[[int], list[Demonstration]]
    labelled_pairs: Callable[[int], list[LabelledPair]]
    tokenizer: "Callable[[int], PreTrainedTokenizerFast]"
