"""Rows survive storage exactly, and their digest is theirs alone."""

import hashlib
import types
import typing

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from alignment.types import (
    SCHEMA_VERSION,
    Candidate,
    Dropped,
    Failure,
    Group,
    Message,
    PreferencePair,
    Prompt,
    SequenceLogprobs,
)
from infra import tables

text = st.text(max_size=8)
real = st.floats(allow_nan=False, allow_infinity=False)
token_ids = st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple)
free_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | real | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
prompts = st.builds(
    Prompt,
    id=text,
    messages=st.lists(st.builds(Message, content=text), min_size=1, max_size=3).map(tuple),
    preference=st.none() | text,
    metadata=st.dictionaries(text, free_json, max_size=3),
)
failures = st.builds(Failure, prompt_id=text, candidate=st.none() | st.integers(0, 9), model=st.none() | text)
pairs = st.builds(PreferencePair, chosen=st.integers(0, 99), rejected=st.integers(0, 99), margin=st.none() | real)
logprobs = st.builds(SequenceLogprobs, logprobs=st.lists(real, max_size=4).map(tuple), lengths=token_ids)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    size = draw(st.integers(0, 3))
    rewards_G = st.lists(st.none() | real, min_size=size, max_size=size).map(tuple)
    return Group(
        prompt=draw(prompts),
        prompt_ids=draw(token_ids),
        candidates=tuple(draw(candidates(index)) for index in range(size)),
        rewards=draw(st.dictionaries(text, rewards_G, max_size=2)),
        failures=tuple(draw(st.lists(failures, max_size=2))),
    )


def candidates(index: int) -> st.SearchStrategy[Candidate]:
    return st.builds(
        Candidate,
        index=st.just(index),
        text=text,
        token_ids=token_ids,
        parent=st.none() | st.integers(0, 9),
        feedback=st.none() | text,
        logprob=st.none() | real,
    )


ROWS = [
    (Prompt, prompts),
    (Group, groups()),
    (PreferencePair, pairs),
    (SequenceLogprobs, logprobs),
    (Dropped, st.builds(Dropped)),
]


@pytest.mark.parametrize(("row_type", "rows"), ROWS, ids=lambda value: getattr(value, "__name__", ""))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_come_back_exactly_as_they_were_written(row_type, rows, data):
    written = data.draw(st.lists(rows, max_size=3))
    back = tables.from_parquet(tables.to_parquet(written, row_type), row_type)
    assert back == written
    assert tables.row_digests(back) == tables.row_digests(written)


def columns_of(type_: pa.DataType) -> object:
    """Names of a schema, nested: a mapping for a struct, the items' for a list."""
    if pa.types.is_struct(type_):
        return {field.name: columns_of(field.type) for field in type_}
    return columns_of(type_.value_type) if pa.types.is_list(type_) else None


def fields_of(type_: object) -> object:
    """The same of a pydantic type."""
    if isinstance(type_, type) and issubclass(type_, BaseModel):
        return {name: fields_of(field.annotation) for name, field in type_.model_fields.items()}
    if typing.get_origin(type_) is tuple:
        return fields_of(typing.get_args(type_)[0])
    if typing.get_origin(type_) in (types.UnionType, typing.Union):
        (only,) = [part for part in typing.get_args(type_) if part is not type(None)]
        return fields_of(only)
    return None


@pytest.mark.parametrize("row_type", tables.SCHEMAS, ids=lambda t: t.__name__)
def test_every_field_of_a_row_has_its_column(row_type):
    """Arrow drops a value without a column, and makes nulls of a column without a value, and says nothing."""
    assert columns_of(pa.struct(list(tables.schema_of(row_type)))) == fields_of(row_type)


def test_no_rows_are_a_table_with_its_schema():
    data = tables.to_parquet([], Group)
    assert tables.from_parquet(data, Group) == []
    with pytest.raises(ValueError, match=f"holds Group of schema {SCHEMA_VERSION}"):
        tables.from_parquet(data, Prompt)


def test_another_schema_version_is_refused():
    table = tables.to_table([], Dropped)
    newer = table.replace_schema_metadata({"row": "Dropped", "schema": "999"})
    with pytest.raises(ValueError, match=rf"holds Dropped of schema 999 .* reads Dropped of schema {SCHEMA_VERSION}"):
        tables.from_table(newer, Dropped)


def test_a_row_of_another_type_is_refused():
    with pytest.raises(TypeError, match="rows of Prompt hold Dropped"):
        tables.to_table([Dropped(step="a", item="b", reason="c")], Prompt)  # pyright: ignore


def test_a_type_without_schema_is_refused():
    with pytest.raises(TypeError, match="Message have no declared schema; there are Prompt, Group"):
        tables.to_table([], Message)


def test_the_digest_is_of_canonical_json():
    """Worked by hand: the row's JSON with sorted keys, hashed; then the hashes, one a line, hashed."""
    row = Dropped(step="s", item="i", reason="é")
    one = hashlib.sha256('{"item":"i","reason":"é","step":"s"}'.encode()).hexdigest()
    assert tables.row_digests([row, row]) == (one, one)
    assert tables.digest_rows([one, one]) == hashlib.sha256(f"{one}\n{one}".encode()).hexdigest()


def test_the_digest_knows_order_and_length():
    a, b = tables.row_digests([Dropped(step="s", item=item, reason="r") for item in "ab"])
    assert len({tables.digest_rows(rows) for rows in ([], [a], [a, b], [b, a], [a, a])}) == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_names_its_row(value):
    rows = [SequenceLogprobs(prompt_id="p", logprobs=(number,), lengths=(1,)) for number in (-1.0, value)]
    with pytest.raises(ValueError, match=r"row 1 \(SequenceLogprobs\)"):
        tables.row_digests(rows)


def test_text_that_has_no_utf8_names_its_row():
    with pytest.raises(ValueError, match=r"row 0 \(Dropped\).*surrogates"):
        tables.row_digests([Dropped(step="s", item="\ud800", reason="r")])
