import math

import pytest
from pydantic import ValidationError

from alignment.types import Candidate, Group, Message, PreferencePair, Prompt, canonical_json, digest_of, seed_of


def ask(text: str, **fields) -> Prompt:
    return Prompt.of((Message(role="user", content=text),), **fields)


def answer(index: int) -> Candidate:
    return Candidate(index=index, text="x", token_ids=(1,), finish_reason="stop")


def test_canonical_json_is_one_text_per_value():
    assert canonical_json({"b": [1, None], "a": "ä"}) == '{"a":"ä","b":[1,null]}'
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of(1) != digest_of(1.0)
    assert digest_of("") == "12ae32cb1ec02d01eda3581b127c1fee3b0dc53572ed6baf239721a03d82e126"  # sha256 of '""'


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": object()}, {1, 2}])
def test_what_has_no_canonical_json_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        canonical_json(value)


def test_a_prompts_id_is_its_messages_and_preference_and_nothing_else():
    plain = ask("hello")
    assert len(plain.id) == 32
    assert plain.id == ask("hello", metadata={"source": "file"}).id
    assert len({plain.id, ask("hello ").id, ask("hello", preference="short").id, ask("hello", preference="").id}) == 4
    assert plain.id != Prompt.of((Message(role="system", content="hello"),)).id


def test_seeds_are_fixed_in_range_and_unrelated():
    """Neighbouring rounds and prompts share no seed, nor one that is near; parts do not run together."""
    seeds = [seed_of(0, r, p) for r in range(50) for p in range(50)]
    assert len(set(seeds)) == 2500
    assert all(0 <= s < 2**63 for s in seeds)
    assert min(b - a for a, b in zip(sorted(seeds), sorted(seeds)[1:], strict=False)) > 64
    assert seed_of(1, 23) != seed_of(12, 3)
    assert seed_of(1, "2") != seed_of("1", 2)
    assert seed_of(0, 1, "p", 0) == seed_of(0, 1, "p", 0)


def test_records_are_frozen_and_refuse_unknown_fields():
    prompt = ask("hello")
    with pytest.raises(ValidationError, match="frozen"):
        prompt.preference = "x"
    with pytest.raises(ValidationError, match="Extra inputs"):
        Message(role="user", content="x", name="y")
    with pytest.raises(ValidationError):
        Prompt.of(())


@pytest.mark.parametrize("indices", [(0, 2), (1, 0), (1, 2)])
def test_a_groups_candidates_are_numbered_in_order(indices):
    with pytest.raises(ValidationError, match=r"indices are not 0\.\.1"):
        Group(prompt=ask("q"), prompt_ids=(1,), candidates=tuple(map(answer, indices)))


def test_a_groups_rewards_match_its_candidates():
    group = Group(prompt=ask("q"), prompt_ids=(1,), candidates=(answer(0), answer(1)), rewards={"proxy": (0.5, None)})
    assert Group.model_validate_json(group.model_dump_json()) == group
    with pytest.raises(ValidationError, match="1 rewards of 'proxy' for 2 candidates"):
        Group(prompt=ask("q"), prompt_ids=(1,), candidates=(answer(0), answer(1)), rewards={"proxy": (0.5,)})


@pytest.mark.parametrize("bad", [{"p": 1.1}, {"p": -0.1}, {"weight": -1.0}])
def test_a_pairs_label_is_a_probability_and_its_weight_is_not_negative(bad):
    with pytest.raises(ValidationError):
        PreferencePair(prompt_id="q", chosen=0, rejected=1, source="test", **bad)
