"""Every chat template that trl ships: what of each conversation is trained on, or the one line that refuses it."""

import copy
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignment.errors import UserError
from alignment.logprobs import Row, token_logprobs
from alignment.rendering import completion_ids, full_render, load_tokenizer, render
from alignment.template_probe import check_template
from alignment.types import Message, Prompt


def conversation(*turns: tuple[str, str]) -> Prompt:
    return Prompt.of(tuple(Message(role=role, content=text) for role, text in turns))


CONVERSATIONS = {
    "one turn": conversation(("user", "Say yes.")),
    "system": conversation(("system", "Be brief."), ("user", "Say yes.")),
    "turns": conversation(("user", "Write to Anna."), ("assistant", "Dear Anna."), ("user", "Say yes.")),
}
MARKERS = re.compile(r"<\|[^|<>\s]+\|>|<[^<>|\s][^<>\s]*>|<[^<>\s]+\|>|<\|[^<>\s]+>|\[/?[A-Za-z]+\]")

TRAINED_ON = {
    "Yes.<|im_end|>": "lfm2 lfm2_2_5 lfm2_2_5_v2 lfm2_2_5_vl lfm2_training lfm2_v2 lfm2_v2_training qwen2_5 "
    "qwen2_5_training qwen2_5_vl qwen2_5_vl_training qwen3_5_nothink qwen3_5_nothink_training qwen3_instruct_2507 "
    "qwen3_instruct_2507_training qwen3_vl qwen3_vl_training",
    "<think>\n\n</think>\n\nYes.<|im_end|>": "qwen3 qwen3_training",
    "\n</think>\n\nYes.<|im_end|>": "qwen3_5_think qwen3_5_think_training qwen3_6 qwen3_6_training qwen3_8 "
    "qwen3_8_training",
    "\n<think></think>\nYes.<|user|>": "glm4moe_training",
    "<|channel|>final<|message|>Yes.<|return|>": "gptoss gptoss_training",
    " to=user<|message|>Yes.<|eot|>": "muse_glimmer muse_glimmer_training",
    "Yes.<|eot_id|>": "llama3 llama3_1 llama3_2 llama3_training",
    "Yes.<end_of_turn>": "gemma gemma3 gemma3_training gemma_training",
    "Yes.<turn|>": "diffusion_gemma diffusion_gemma_training gemma4 gemma4_v2 gemma4_v3 gemma4_v4 gemma4_v5",
    "Yes.<|END_OF_TURN_TOKEN|>": "cohere cohere_training",
    "Yes.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>": "cohere2 cohere2_training",
    "Yes.<|end|>\n<eos>": "phi3 phi3_5 phi3_5_training phi3_training",
}
"""What the loss sees of the answer "Yes.", by what a template makes of it. A thinking template that writes an empty
block itself has it trained on, since the policy must write it to come to its answer."""
REFUSED = {
    "the chat template's generation prompt is no prefix of the whole conversation": "deepseek_r1_distill "
    "deepseek_r1_distill_training deepseekv3 deepseekv3_training nemotron_3_5_lightning "
    "nemotron_3_5_lightning_training nemotron_3_nano nemotron_3_nano_training nemotron_3_super "
    "nemotron_3_super_training nemotron_3_ultra nemotron_3_ultra_training",
    "no EOS (<eos>) after the completion": "glm4moe",
    "the chat template leaves out the": "idefics3 idefics3_training llava_next llava_next_training smolvlm "
    "smolvlm_training",
}
"""How the refusal begins: prompts that open a block of thoughts which the whole conversation does not have, turns that
nothing ends, and templates for pictures."""
EXPECTED = {name: text for text, names in TRAINED_ON.items() for name in names.split()} | {
    name: f"refused: {why}" for why, names in REFUSED.items() for name in names.split()
}
NO_SYSTEM = dict.fromkeys(
    ("gemma", "gemma_training"), "refused: the chat template refuses a conversation of system, user"
)
NO_TEXT = dict.fromkeys(("llava_next", "llava_next_training"), "refused: the chat template refuses a conversation of ")
OTHERWISE = {"system": NO_SYSTEM | NO_TEXT, "turns": NO_TEXT}
"""Where a longer conversation fares differently."""
OPENS_A_LINE = ("qwen3_5_think", "qwen3_6", "qwen3_8")
"""Their prompt ends with a line break and their answer begins with one, which large vocabularies merge into a token."""


def shipped() -> dict[str, str]:
    library = importlib.util.find_spec("trl")
    folder = Path(library.submodule_search_locations[0]) / "chat_templates" if library else Path("/nowhere")
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.jinja"))}


SHIPPED = shipped()
pytestmark = pytest.mark.skipif(not SHIPPED, reason="trl, which ships real chat templates, is not installed")


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Path):
    """The tiny tokenizer with every marker of every template as a special token."""
    tokenizer = load_tokenizer(tiny_tokenizer)
    markers = sorted({marker for template in SHIPPED.values() for marker in MARKERS.findall(template)})
    tokenizer.add_special_tokens({"extra_special_tokens": markers})
    return tokenizer


@pytest.fixture(scope="module")
def merging_tokenizer(tokenizer):
    """The same with one token for an empty line."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["\n\n"])
    return tokenizer


def with_template(tokenizer, template: str):
    """EOS is the marker that stands last in the assistant's turn."""
    tokenizer.chat_template, tokenizer.eos_token = template, "<eos>"
    try:
        turn = full_render(tokenizer, CONVERSATIONS["one turn"], "Yes.").rpartition("Yes.")[2]
    except UserError:
        return tokenizer  # a template for pictures
    tokenizer.eos_token = max(MARKERS.findall(turn), key=turn.rfind, default="<eos>")
    return tokenizer


class Scored:
    """A model in whose eyes every next token is certain, and which notes what it was asked for."""

    device = "cpu"

    def __call__(self, *, input_ids, logits_to_keep, **_):
        import torch

        self.tokens = input_ids[0, logits_to_keep + 1].tolist()
        logits = torch.full((1, len(self.tokens), int(input_ids.max()) + 1), -1e6)
        logits[0, range(len(self.tokens)), self.tokens] = 0.0
        return SimpleNamespace(logits=logits)


def outcome(tokenizer, prompt: Prompt) -> str:
    """The text whose log-probability is taken, where the probe holds; else the refusal, in one line."""
    try:
        check_template(tokenizer, prompt, "Yes.")
    except UserError as refusal:
        return f"refused: {refusal}"
    prompt_ids, completion = render(tokenizer, prompt), completion_ids(tokenizer, prompt, "Yes.")
    whole, scored = full_render(tokenizer, prompt, "Yes."), Scored()
    assert tuple(tokenizer(whole, add_special_tokens=False)["input_ids"][: len(prompt_ids)]) == prompt_ids
    assert whole.startswith(tokenizer.decode(list(prompt_ids + completion)))
    assert token_logprobs(scored, [Row(prompt_ids, completion)]).tolist() == [[0.0] * len(completion)]
    assert scored.tokens == list(completion)
    assert completion.index(tokenizer.eos_token_id) == len(completion) - 1
    return tokenizer.decode(scored.tokens)


def test_the_table_knows_every_template():
    assert EXPECTED.keys() == SHIPPED.keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_completion_alone_is_trained_on_or_the_template_is_refused(tokenizer, name: str):
    with_template(tokenizer, SHIPPED[name])
    for kind, prompt in CONVERSATIONS.items():
        expected, found = OTHERWISE.get(kind, {}).get(name, EXPECTED[name]), outcome(tokenizer, prompt)
        assert found.startswith(expected) if expected.startswith("refused: ") else found == expected
        assert "\n" not in found or found == expected


@pytest.mark.parametrize("name", [name for name in SHIPPED if not EXPECTED[name].startswith("refused: ")])
def test_a_token_that_joins_prompt_and_answer_is_refused(merging_tokenizer, name: str):
    found = outcome(with_template(merging_tokenizer, SHIPPED[name]), CONVERSATIONS["one turn"])
    if name.removesuffix("_training") in OPENS_A_LINE:
        assert found.startswith("refused: the chat template's generation prompt is no prefix")
    else:
        assert found == EXPECTED[name]
