import pytest

from alignment.formats import pair_format, pair_of, prompt_format, prompt_of
from alignment.pair_rows import LabelledRow, PairRow, pair_labels
from alignment.turns import RowError
from alignment.types import Message, Prompt


def user(text):
    return Message(role="user", content=text)


def assistant(text):
    return Message(role="assistant", content=text)


def read_prompt(row):
    return prompt_of(prompt_format(row), row)


def read_pair(row):
    return pair_of(pair_format(row), row)


SYSTEM = Message(role="system", content="Be brief.")
ASK = {"role": "user", "content": "Ask"}
LONG = (user("Hi"), assistant("Hello"), user("Ask"))
LONG_LIST = [m.model_dump() for m in LONG]
YES, NO = {"role": "assistant", "content": "Yes"}, {"role": "assistant", "content": "No"}


@pytest.mark.parametrize(
    ("row", "messages", "metadata"),
    [
        ({"prompt": "Ask"}, (user("Ask"),), {}),
        ({"prompt": "Ask", "id": 3, "tags": ["a"]}, (user("Ask"),), {"id": 3, "tags": ["a"]}),
        ({"prompt": "Ask", "system": "Be brief."}, (SYSTEM, user("Ask")), {}),
        ({"prompt": "Ask", "input": "kept"}, (user("Ask"),), {"input": "kept"}),
        ({"prompt": LONG_LIST}, LONG, {}),
        ({"messages": [SYSTEM.model_dump(), *LONG_LIST]}, (SYSTEM, *LONG), {}),
        ({"conversations": [{"from": "human", "value": "Ask"}]}, (user("Ask"),), {}),
        ({"instruction": "Sum", "input": "1 2", "output": "3"}, (user("Sum\n\n1 2"),), {"output": "3"}),
        ({"instruction": "Sum", "input": ""}, (user("Sum"),), {}),
        ({"instruction": "Sum", "context": "1 2"}, (user("Sum\n\n1 2"),), {}),
        ({"question": "Ask", "answer": "4"}, (user("Ask"),), {"answer": "4"}),
        ({"prompt": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Ask\n\nAssistant:"}, LONG, {}),
    ],
)
def test_a_prompt_is_read_from_each_known_shape(row, messages, metadata):
    prompt = read_prompt(row)
    assert (prompt.messages, dict(prompt.metadata)) == (messages, metadata)
    assert prompt.id == Prompt.of(messages).id


def test_a_stated_preference_bears_identity_and_is_no_metadata():
    prompt = read_prompt({"prompt": "Ask", "preference": "Be kind."})
    assert (prompt.preference, dict(prompt.metadata)) == ("Be kind.", {})
    assert prompt.id != read_prompt({"prompt": "Ask", "preference": None}).id


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": "Ask", "preference": ""}, "preference is empty"),
        ({"prompt": "Ask", "preference": 3}, "preference is a number, expected text"),
        ({"prompt": "Ask", "system": ["x"]}, "system is a list, expected text"),
        ({"prompt": "Ask", "score": float("nan")}, "score holds what JSON and UTF-8 cannot"),
        ({"prompt": "Ask \ud83d"}, "prompt holds what JSON and UTF-8 cannot"),
        ({"messages": []}, "messages is empty"),
        ({"messages": ["Ask"]}, r"messages\[0\] is text, expected a message"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\] has role 'tool'"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, r"messages\[0\].content is a list"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is null"),
        ({"messages": [ASK, YES]}, "the prompt ends with the assistant's turn"),
        ({"messages": [ASK, ASK]}, "turns 1 and 2 are both the user's"),
        (
            {"messages": [{"role": "system", "content": "x"}, ASK, YES, YES, ASK]},
            "turns 3 and 4 are both the assistant's",
        ),
        ({"messages": [YES, ASK]}, "the prompt begins with the assistant's turn"),
        ({"messages": [ASK, {"role": "system", "content": "x"}, ASK]}, "turn 2 is the system's"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no user's turn"),
        ({"instruction": "Sum", "input": 3}, "input is a number, expected text"),
    ],
)
def test_a_row_that_is_no_prompt_says_why(row, reason):
    with pytest.raises(RowError, match=reason):
        read_prompt(row)


@pytest.mark.parametrize("row", [{}, {"turns": ["Ask"]}, {"prompt": None}, {"prompt": float("nan")}, {"text": "Ask"}])
def test_a_row_of_no_known_shape_has_no_format(row):
    assert prompt_format(row) is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "Ask", "chosen": "Yes", "rejected": "No"}, ((user("Ask"),), "Yes", "No")),
        ({"prompt": "Ask", "chosen": " (B)", "rejected": " (A)"}, ((user("Ask"),), " (B)", " (A)")),
        ({"instruction": "A", "input": "b", "chosen": "Yes", "rejected": "No"}, ((user("A\n\nb"),), "Yes", "No")),
        ({"prompt": LONG_LIST, "chosen": [YES], "rejected": [NO]}, (LONG, "Yes", "No")),
        ({"prompt": LONG_LIST, "chosen": "Yes", "rejected": "No"}, (LONG, "Yes", "No")),
        ({"chosen": [*LONG_LIST, YES], "rejected": [*LONG_LIST, NO]}, (LONG, "Yes", "No")),
        (
            {"prompt": "Ask", "chosen": [ASK, YES], "rejected": [ASK, NO], "messages": [ASK, YES]},
            ((user("Ask"),), "Yes", "No"),
        ),
        (
            {
                "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Ask"}],
                "chosen": {"from": "gpt", "value": "Yes"},
                "rejected": {"from": "gpt", "value": "No"},
            },
            ((SYSTEM, user("Ask")), "Yes", "No"),
        ),
        ({"messages": [ASK], "chosen": YES, "rejected": NO}, ((user("Ask"),), "Yes", "No")),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Ask\n\nAssistant: Yes",
                "rejected": "\n\nHuman: Hi\n\nAssistant: Hello \n\nHuman: Ask\n\nAssistant: No",
            },
            (LONG, "Yes", "No"),
        ),
        ({"question": "Ask", "response_j": "Yes", "response_k": "No"}, ((user("Ask"),), "Yes", "No")),
        ({"input": "Ask", "output_1": "Yes", "output_2": "No", "label": 1}, ((user("Ask"),), "Yes", "No")),
        ({"input": "Ask", "output_1": "No", "output_2": "Yes", "label": 2}, ((user("Ask"),), "Yes", "No")),
        (
            {"question": "Ask", "answer_matching_behavior": "Yes", "answer_not_matching_behavior": "No"},
            ((user("Ask"),), "Yes", "No"),
        ),
    ],
)
def test_a_pair_is_read_from_each_known_shape(row, expected):
    pair = read_pair(row)
    assert (pair.prompt.messages, pair.chosen, pair.rejected) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Ask", "chosen": "", "rejected": "No"}, "chosen is empty"),
        ({"prompt": "Ask", "chosen": "Yes", "rejected": "Yes\n"}, "chosen and rejected are the same"),
        (
            {"prompt": "Ask", "chosen": [YES, NO], "rejected": [YES]},
            "chosen and rejected differ before their last turn",
        ),
        ({"prompt": "Other", "chosen": [ASK, YES], "rejected": [ASK, NO]}, "chosen does not contain the prompt"),
        ({"chosen": [ASK], "rejected": [ASK]}, "chosen ends with the user's turn, not with a completion"),
        ({"chosen": [YES], "rejected": [NO]}, "the prompt has no user's turn"),
        (
            {"chosen": "\n\nHuman: Ask\n\nAssistant: ", "rejected": "\n\nHuman: Ask\n\nAssistant: No"},
            "chosen has an empty",
        ),
        ({"chosen": "Yes", "rejected": "No"}, "chosen does not begin with a blank line and 'Human:'"),
        ({"input": "Ask", "output_1": "Yes", "output_2": "No", "label": 0}, "label is 0, expected 1 or 2"),
        ({"messages": [ASK], "label": True}, "messages ends with the user's turn"),
    ],
)
def test_a_row_that_is_no_pair_says_why(row, reason):
    with pytest.raises(RowError, match=reason):
        read_pair(row)


def test_a_row_of_another_shape_than_the_first_is_an_error():
    known = pair_format({"prompt": "Ask", "chosen": "Yes", "rejected": "No"})
    with pytest.raises(RowError, match="no 'rejected'"):
        pair_of(known, {"prompt": "Ask", "chosen": "Yes"})
    with pytest.raises(RowError, match="rejected is NaN, expected text"):
        pair_of(known, {"prompt": "Ask", "chosen": "Yes", "rejected": float("nan")})
    with pytest.raises(RowError, match="chosen is a list, expected text"):
        pair_of(known, {"prompt": "Ask", "chosen": [YES], "rejected": "No"})


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASK, YES], "label": True},
        {"prompt": "Ask", "completion": "Yes", "label": True},
        {"prompt": [ASK], "completion": [YES], "label": True},
    ],
)
def test_a_single_label_is_read_from_each_known_shape(row):
    labelled = read_pair(row)
    assert (labelled.prompt.messages, labelled.completion, labelled.label) == ((user("Ask"),), "Yes", True)


def test_labels_become_pairs_where_a_prompt_has_both_kinds():
    """Prompt a: 2 wanted x 1 unwanted = 2 pairs. Prompt b: only wanted. Prompt c: "x" is both, so its "y" is alone."""

    def labelled(prompt, completion, label):
        return LabelledRow(prompt=Prompt.of((user(prompt),)), completion=completion, label=label)

    rows = {
        "1": labelled("a", "good", True),
        "2": labelled("b", "lone", True),
        "3": labelled("a", "bad", False),
        "4": labelled("a", "fine", True),
        "5": labelled("c", "x", True),
        "6": labelled("c", "x", False),
        "7": labelled("c", "y", True),
    }
    pairs, dropped = pair_labels(rows)
    prompt = Prompt.of((user("a"),))
    assert pairs == [PairRow(prompt=prompt, chosen=good, rejected="bad") for good in ("good", "fine")]
    assert {d.item: d.reason for d in dropped} == {
        "2": "its prompt has no other completion labelled false",
        "5": "its completion is labelled both true and false",
        "6": "its completion is labelled both true and false",
        "7": "its prompt has no other completion labelled false",
    }
