"""Real files of prompts and pairs: read whole, with every defective row named."""

import pytest

from alignment.errors import UserError
from infra.sources import read_pairs, read_prompts


def test_the_five_defective_hh_rows_are_named_by_line(shared_data):
    """Counted from 0 they are rows 86, 516, 667, 763 and 925."""
    path = str(shared_data / "preferences/hh_rlhf_harmless_base_test.rows0000-0999.jsonl.gz")
    with pytest.raises(
        UserError, match=r"line 87: chosen has an empty completion\. It is the first of 5 bad rows of 1000"
    ):
        read_pairs(path)
    read = read_pairs(path, skip_bad_rows=True)
    assert len(read.pairs) == 995
    assert [(int(d.item.rsplit(" ", 1)[1]), d.reason) for d in read.dropped] == [
        (87, "chosen has an empty completion"),
        (517, "chosen has an empty completion"),
        (668, "the prompt: turns 4 and 5 are both the assistant's"),
        (764, "the prompt: turns 2 and 3 are both the assistant's"),
        (926, "chosen has an empty completion"),
    ]
    first = read.pairs[0]
    assert [m.role for m in first.prompt.messages] == ["user", "assistant"] * (len(first.prompt.messages) // 2) + [
        "user"
    ]
    assert first.prompt.messages[0].content == "what are some pranks with a pen i can do?"


@pytest.mark.parametrize(
    ("file", "pairs", "dropped"),
    [
        ("hhh_alignment.jsonl.gz", 221, 0),
        ("llmbar/natural.json", 100, 0),
        ("llmbar/adversarial_gptinst.json", 92, 0),
        ("llmbar/adversarial_gptout.json", 47, 0),
        ("llmbar/adversarial_manual.json", 46, 0),
        ("llmbar/adversarial_neighbor.json", 134, 0),
        ("llamafactory_dpo_en_demo.json.gz", 300, 0),
        ("llamafactory_kto_en_demo.json.gz", 1, 298),
        ("one_token_answers_corrigible-neutral-HHH.jsonl.gz", 340, 0),
        ("tiny/hh_rlhf_tiny.json", 1, 0),
        ("tiny/stack_exchange_paired_tiny.json", 25, 0),
    ],
)
def test_real_preference_files_are_read_whole(shared_data, file, pairs, dropped):
    """Of the 300 single labels, one prompt has both kinds."""
    read = read_pairs(str(shared_data / "preferences" / file))
    assert (len(read.pairs), len(read.dropped)) == (pairs, dropped)


def test_a_matrix_of_completions_is_refused_with_its_reason(shared_data):
    with pytest.raises(
        UserError, match=r"row 1: chosen\[0\] is text, expected a message .* None of its 129 rows is good"
    ):
        read_pairs(str(shared_data / "preferences/rm_bench/chat_filtered.json.gz"))


@pytest.mark.parametrize(
    ("file", "prompts", "dropped"),
    [
        ("arena_hard_v0.1_question.jsonl.gz", 500, 0),
        ("arena_hard_v2.0_question.jsonl.gz", 750, 0),
        ("gsm8k_test.jsonl.gz", 1319, 0),
        ("ifbench_test.jsonl.gz", 300, 0),
        ("ifeval_input_data.jsonl.gz", 541, 0),
        ("litgpt_dolly_sample.json", 12, 0),
        ("llamafactory_alpaca_en_demo.json.gz", 985, 14),
        ("self_instruct_seed_tasks.jsonl.gz", 175, 0),
        ("self_instruct_user_oriented.jsonl.gz", 251, 1),
    ],
)
def test_real_prompt_files_are_read_whole(shared_data, file, prompts, dropped):
    read = read_prompts(str(shared_data / "prompts" / file))
    assert (len(read.prompts), len(read.dropped)) == (prompts, dropped)


def test_turns_of_several_rounds_are_no_prompt(shared_data):
    with pytest.raises(UserError, match=r"turns \(a list\)"):
        read_prompts(str(shared_data / "prompts/mt_bench_question.jsonl"))


def test_chosen_and_rejected_of_real_pairs_share_their_prompt_ids(shared_data, tiny_tokenizer):
    from alignment.rendering import completion_ids, load_tokenizer, render

    tokenizer = load_tokenizer(tiny_tokenizer)
    read = read_pairs(
        str(shared_data / "preferences/hh_rlhf_harmless_base_test.rows0000-0999.jsonl.gz"), limit=80, skip_bad_rows=True
    )
    for pair in read.pairs:
        prompt_ids = render(tokenizer, pair.prompt)
        for completion in (pair.chosen, pair.rejected):
            ids = completion_ids(tokenizer, pair.prompt, completion)
            text = tokenizer.decode(list(prompt_ids + ids))
            assert tuple(tokenizer(text, add_special_tokens=False)["input_ids"][: len(prompt_ids)]) == prompt_ids
            assert text.endswith(f"<|assistant|>{completion}<eos>")
