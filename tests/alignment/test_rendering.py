import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.errors import UserError
from alignment.rendering import completion_ids, load_tokenizer, prompt_text, render
from alignment.template_probe import check_template
from alignment.types import Message, Prompt


def ask(text, preference=None):
    return Prompt.of((Message(role="user", content=text),), preference)


TURNS = Prompt.of(
    (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Write to Anna."),
        Message(role="assistant", content="Dear Anna."),
        Message(role="user", content="Shorter."),
    ),
    "Use one word.",
)


@pytest.fixture
def tokenizer(tiny_tokenizer):
    return load_tokenizer(tiny_tokenizer)


def with_template(tokenizer, template):
    tokenizer.chat_template = template
    return tokenizer


def test_loading_and_rendering_import_no_torch(tiny_tokenizer):
    program = (
        "import sys; from pathlib import Path; from alignment.rendering import *; "
        "from alignment.template_probe import *; from alignment.types import *\n"
        f"t = load_tokenizer(Path({str(tiny_tokenizer)!r}))\n"
        "p = Prompt.of((Message(role='user', content='Say yes.'),))\n"
        "check_template(t, p, 'Yes.'); assert completion_ids(t, p, 'Yes.')\n"
        "assert 'torch' not in sys.modules and 'vllm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_a_prompt_is_its_template_render_with_the_preference_after_a_blank_line(tokenizer):
    expected = (
        "<bos><|system|>Be brief.<|user|>Write to Anna.<|assistant|>Dear Anna.<eos>"
        "<|user|>Shorter.\n\nUse one word.<|assistant|>"
    )
    assert tokenizer.decode(list(render(tokenizer, TURNS))) == expected


def test_render_is_what_transformers_makes_of_the_same_conversation(tokenizer):
    messages = [{"role": "user", "content": "Write a note."}]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert render(tokenizer, ask("Write a note.")) == tuple(theirs["input_ids"])


def test_plain_text_names_speakers_only_where_there_are_several():
    assert prompt_text(ask("Hello.", "Be kind.")) == "Hello.\n\nBe kind."
    assert prompt_text(TURNS) == (
        "System: Be brief.\n\nUser: Write to Anna.\n\nAssistant: Dear Anna.\n\nUser: Shorter.\n\nUse one word."
    )


@pytest.mark.parametrize("completion", ["Yes.", " (B)", "\n\nA list:\n- 日本", "é" * 50])
@pytest.mark.parametrize("prompt", [ask("Say yes."), TURNS])
def test_prompt_then_completion_is_the_whole_conversation_with_one_eos_at_its_end(tokenizer, prompt, completion):
    ids = render(tokenizer, prompt) + completion_ids(tokenizer, prompt, completion)
    assert tokenizer.decode(list(ids)).endswith(f"<|assistant|>{completion}<eos>")
    assert completion_ids(tokenizer, prompt, completion).count(tokenizer.eos_token_id) == 1


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_any_text_completes_a_prompt_unchanged(tiny_tokenizer, text):
    tokenizer = load_tokenizer(tiny_tokenizer)
    ids = render(tokenizer, ask("Say it.")) + completion_ids(tokenizer, ask("Say it."), text)
    assert tokenizer.decode(list(ids)) == f"<bos><|user|>Say it.<|assistant|>{text}<eos>"


def test_a_completion_that_would_merge_with_the_prompt_leaves_the_prompt_ids_alone(tokenizer):
    """The generation prompt ends in " th" and the vocabulary has the token " the": rendered whole, "e." would
    change the prompt's last token."""
    template = (
        "{{ bos_token }}{{ messages[0].content }} th"
        "{% if not add_generation_prompt %}{{ messages[1].content + eos_token }}{% endif %}"
    )
    with_template(tokenizer, template)
    whole = tokenizer("<bos>Which th" + "e work<eos>", add_special_tokens=False)["input_ids"]
    prompt_ids, ids = render(tokenizer, ask("Which")), completion_ids(tokenizer, ask("Which"), "e work")
    assert tuple(whole[: len(prompt_ids)]) != prompt_ids
    assert tokenizer.decode(list(prompt_ids + ids)) == "<bos>Which the work<eos>"
    with pytest.raises(UserError, match="no prefix"):
        check_template(tokenizer, ask("Which"), "e work")


def test_white_space_after_eos_is_left_out_since_a_sampler_stops_there(tokenizer):
    with_template(tokenizer, tokenizer.chat_template.replace("{{ eos_token }}", "{{ eos_token + '\\n' }}"))
    assert completion_ids(tokenizer, ask("Say yes."), "Yes.")[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("'<|assistant|>' }}{% endif %}", "'<|assistant|>Let me think.' }}{% endif %}"), "is no prefix of the whole"),
        (("{{ eos_token }}", ""), r"no EOS \(<eos>\) after the completion"),
        (("{{ bos_token }}", "{{ bos_token + bos_token }}"), r"gives 2 BOS \(<bos>\) where there should be one"),
        (("m['content']", "m['content'].text"), "refuses a conversation of user"),
        (("m['content']", "m['content'][0]"), "leaves out the user's 'Say yes.'"),
        (("{{ eos_token }}", "{{ eos_token }}bye"), "stands inside the assistant's turn"),
        (
            ("{% for m in messages %}", "{% for m in messages if m.role == 'user' or raise_exception('no') %}"),
            "refuses",
        ),
    ],
)
def test_a_template_that_would_part_sampler_from_trainer_is_refused(tokenizer, change, reason):
    with_template(tokenizer, tokenizer.chat_template.replace(*change))
    with pytest.raises(UserError, match=reason):
        check_template(tokenizer, ask("Say yes."), "Yes.")


def test_a_refused_prefix_shows_both_token_lists(tokenizer):
    """<|assistant|> is token 5, which the whole conversation follows with "Y", the prompt with "L"."""
    with_template(tokenizer, tokenizer.chat_template.replace("{{ '<|assistant|>' }}", "{{ '<|assistant|>L' }}"))
    y, l = tokenizer("Y")["input_ids"][0], tokenizer("L")["input_ids"][0]
    with pytest.raises(UserError, match=rf"the prompt has \[{l}\] 'L', prompt and completion have \[{y}, "):
        check_template(tokenizer, ask("Hi"), "Yes.")


def test_a_completion_with_eos_inside_is_refused(tokenizer):
    with pytest.raises(UserError, match="stands inside"):
        completion_ids(tokenizer, ask("Say yes."), "Yes.<eos> And no.")


def test_a_completion_the_template_rewrites_is_refused(tokenizer):
    with_template(tokenizer, tokenizer.chat_template.replace("m['content']", "m['content'].split('</think>')[-1]"))
    with pytest.raises(UserError, match=r"turns the completion 'No\?</think>Yes\.' into 'Yes\.<eos>'"):
        completion_ids(tokenizer, ask("Say yes."), "No?</think>Yes.")


def test_a_bos_that_opens_every_turn_is_counted_at_the_start_only(tokenizer):
    """SmolLM's <|im_start|> is both its BOS and its turn marker."""
    tokenizer.bos_token = "<|user|>"
    chatml = (
        "{% for m in messages %}{{ bos_token + m.role + '\\n' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ bos_token + 'assistant\\n' }}{% endif %}"
    )
    check_template(with_template(tokenizer, chatml), TURNS, "Yes.")


def test_a_missing_bos_is_refused_only_where_the_tokenizer_itself_writes_one(tokenizer):
    from tokenizers.processors import TemplateProcessing

    with_template(tokenizer, tokenizer.chat_template.replace("{{ bos_token }}", ""))
    check_template(tokenizer, ask("Say yes."), "Yes.")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 1)])
    with pytest.raises(UserError, match="gives 0 BOS"):
        check_template(tokenizer, ask("Say yes."), "Yes.")


@pytest.mark.parametrize(
    ("remove", "reason"),
    [
        ("tokenizer.json", "no tokenizer.json. Save a fast tokenizer"),
        ("chat_template.jinja", "has no chat template. Put"),
    ],
)
def test_a_folder_without_tokenizer_or_template_is_refused(tiny_tokenizer, tmp_path, remove, reason):
    folder = shutil.copytree(tiny_tokenizer, tmp_path / "model")
    (folder / remove).unlink()
    with pytest.raises(UserError, match=reason):
        load_tokenizer(folder)


def test_a_damaged_tokenizer_file_is_refused(tiny_tokenizer, tmp_path):
    folder = shutil.copytree(tiny_tokenizer, tmp_path / "model")
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(folder)


def test_a_prompt_that_ends_with_the_assistant_is_refused(tokenizer):
    with pytest.raises(UserError, match="ends with the assistant's turn"):
        render(tokenizer, Prompt.of((Message(role="assistant", content="Hi."),)))
