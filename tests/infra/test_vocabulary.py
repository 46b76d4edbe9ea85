"""Whether two models speak in the same tokens."""

import json
import shutil

import pytest
from model_copies import edit

from alignment.errors import UserError
from infra.vocabulary import same_tokenizer, tokenizer_digest


def test_a_model_shares_its_tokenizer_with_its_copy(tiny_policy, tiny_reward_model, policy):
    edit(policy / "tokenizer_config.json", pad_token="<eos>", model_max_length=9)
    same_tokenizer(tiny_policy, policy)
    same_tokenizer(tiny_policy, tiny_reward_model)


def test_a_template_counts_equal_wherever_it_is_kept(tiny_policy, policy):
    template = policy / "chat_template.jinja"
    edit(policy / "tokenizer_config.json", chat_template=template.read_text())
    template.unlink()
    same_tokenizer(tiny_policy, policy)


def test_merges_count_equal_in_both_spellings(tiny_policy, policy):
    tokenizer = json.loads((policy / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = [" ".join(merge) for merge in tokenizer["model"]["merges"]]
    tokenizer["model"]["ignore_merges"] = False
    edit(policy / "tokenizer.json", **tokenizer)
    same_tokenizer(tiny_policy, policy)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda t: t["model"]["vocab"].update(Zebra=384), "vocabulary 'Zebra' is None and 384"),
        (lambda t: t["model"]["merges"].pop(), r"merges from number 121 on are \[.*\] and \[\]"),
        (lambda t: t.update(normalizer={"type": "Lowercase"}), "rules 'normalizer' is None and {'type': 'Lowercase'}"),
    ],
)
def test_tokenizers_that_differ_are_refused_with_the_first_difference(tiny_policy, policy, change, difference):
    tokenizer = json.loads((policy / "tokenizer.json").read_text())
    change(tokenizer)
    (policy / "tokenizer.json").write_text(json.dumps(tokenizer))
    ours, theirs = tokenizer_digest(tiny_policy)[:12], tokenizer_digest(policy)[:12]
    with pytest.raises(UserError, match=rf"\(digest {ours}\) and .* \(digest {theirs}\) differ: {difference}"):
        same_tokenizer(tiny_policy, policy)


def test_another_chat_template_or_eos_is_another_tokenizer(tiny_policy, policy):
    edit(policy / "tokenizer_config.json", eos_token="<|user|>")
    with pytest.raises(UserError, match=r"eos_token is '<eos>' and '<\|user\|>'"):
        same_tokenizer(tiny_policy, policy)
    (policy / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_digest(policy) != tokenizer_digest(tiny_policy)


def test_real_tokenizer_files_are_digested(shared_data, tmp_path):
    folder = shutil.copytree(shared_data / "tokenizers/tiny/oasst_neox_783", tmp_path / "neox")
    assert len(tokenizer_digest(folder)) == 64
    same_tokenizer(folder, folder)
