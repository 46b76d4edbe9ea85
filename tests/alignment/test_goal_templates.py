"""Goals under the chat templates of real models, with each known defect put back."""

from pathlib import Path

import pytest
from goal_rows import MAP, group_of, pair_of, told

from alignment.errors import UserError
from alignment.goal_template import goal_template
from alignment.relabeling import RewardConditioned
from alignment.rendering import completion_ids, load_tokenizer, prompt_text, render
from alignment.types import Message, Prompt

NO_SYSTEM = ("gemma",)
TEMPLATES = ("gemma3", "llama3", "phi3", "qwen2_5", "qwen3_instruct_2507")


@pytest.fixture
def real_template(tiny_tokenizer: Path):
    folder = pytest.importorskip("trl").__path__[0]

    def load(name: str):
        tokenizer = load_tokenizer(tiny_tokenizer)
        tokenizer.chat_template = Path(folder, "chat_templates", f"{name}.jinja").read_text()
        return tokenizer

    return load


WITH_SYSTEM = [(name, system) for name in TEMPLATES for system in (None, "Be brief.")]


@pytest.mark.parametrize(("name", "system"), [*((name, None) for name in NO_SYSTEM), *WITH_SYSTEM])
def test_every_template_says_the_goal_and_its_low_row_prefers_the_low_answer(real_template, name, system):
    """Round trip through token ids: the goal's words are there, and an exported template says the very same."""
    how = RewardConditioned(placement="user" if name in NO_SYSTEM else "system")
    tokenizer, group = real_template(name), group_of("Write to Anna.", (8.0, 3.5))
    if system:
        prompt = Prompt.of((Message(role="system", content=system), *group.prompt.messages))
        group = group.model_copy(update={"prompt": prompt})
    result = how([group], [pair_of(group, 0, 1)], MAP, lambda p: render(tokenizer, p), reward="reward", context=None)
    assert told(result) == [
        (8, "Write to Anna. 0", "Write to Anna. 1"), (3.5, "Write to Anna. 1", "Write to Anna. 0")
    ]  # fmt: skip
    served = goal_template(str(tokenizer.chat_template), result.groups[0].prompt.goal or how.serving)
    for made in result.groups:
        assert made.prompt.goal is not None
        assert made.prompt.goal.text in tokenizer.decode(list(made.prompt_ids))
    tokenizer.chat_template = served
    assert render(tokenizer, group.prompt) == result.groups[0].prompt_ids


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        ("system", "<|system|>Score 8.\n\nBe brief.<|user|>Hello.<|assistant|>Yes?<eos><|user|>Write.<|assistant|>"),
        ("user", "<|system|>Be brief.<|user|>Score 8.\n\nHello.<|assistant|>Yes?<eos><|user|>Write.<|assistant|>"),
    ],
)
def test_in_a_long_conversation_the_goal_is_said_once_at_its_beginning(tiny_tokenizer: Path, placement, said):
    tokenizer = load_tokenizer(tiny_tokenizer)
    turns = (("system", "Be brief."), ("user", "Hello."), ("assistant", "Yes?"), ("user", "Write."))
    prompt = Prompt.of(tuple(Message(role=role, content=content) for role, content in turns))
    goal = RewardConditioned(text="Score {goal}.", placement=placement).goal(8)
    ids = render(tokenizer, prompt.at_goal(goal))
    assert tokenizer.decode(list(ids)) == f"<bos>{said}"
    tokenizer.chat_template = goal_template(str(tokenizer.chat_template), goal)
    assert render(tokenizer, prompt) == ids


def test_a_template_without_system_role_refuses_a_goal_that_is_placed_there(real_template):
    with pytest.raises(UserError, match="system"):
        render(real_template("gemma"), group_of("q", (1.0,), goal=RewardConditioned().serving).prompt)


def test_a_goal_changes_the_prompts_tokens_and_none_of_the_completions(tiny_tokenizer: Path):
    tokenizer = load_tokenizer(tiny_tokenizer)
    prompt = group_of("Write to Anna.", (1.0,)).prompt
    at_goal = prompt.at_goal(RewardConditioned().goal(8))
    assert render(tokenizer, at_goal) != render(tokenizer, prompt)
    assert completion_ids(tokenizer, at_goal, "Dear Anna.") == completion_ids(tokenizer, prompt, "Dear Anna.")
    assert prompt_text(at_goal) == prompt_text(prompt) == "Write to Anna."
    assert at_goal.at_goal(None) == prompt
