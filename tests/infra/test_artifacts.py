"""Find or make: recipes, and the objects they make."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from small_rows import commit, data_files, dropped, run_python

from alignment.errors import Conflict, UserError
from alignment.losses import DPO
from alignment.types import Artifact, Dropped, Group, Message, Prompt
from infra import artifacts, objects, storage


def test_a_recipe_is_the_same_in_every_process():
    code = """
        from alignment.losses import DPO
        from infra.artifacts import recipe_of
        print(recipe_of("policy", loss=DPO(), seed=(1, 2), names={"b": 1, "a": None}))
    """
    here = artifacts.recipe_of("policy", names={"a": None, "b": 1}, seed=[1, 2], loss=DPO())
    assert len(here) == 64
    assert run_python(code, PYTHONHASHSEED="1").stdout.strip() == here


def test_an_artifact_counts_by_its_digest_alone(store):
    """The same rows from another recipe, with other facts, are the same input."""
    one = commit(store, "a", recipe="r1", facts={"seconds": 1.0})
    two = commit(store, "a", recipe="r2", facts={"seconds": 2.0})
    assert one != two
    assert artifacts.recipe_of("policy", pairs=one) == artifacts.recipe_of("policy", pairs=two)
    assert artifacts.recipe_of("policy", pairs=one) != artifacts.recipe_of("policy", pairs=commit(store, recipe="r3"))


def test_kind_and_inputs_tell_recipes_apart():
    asked = [
        artifacts.recipe_of("pairs", seed=1),
        artifacts.recipe_of("groups", seed=1),
        artifacts.recipe_of("pairs", seed=2),
        artifacts.recipe_of("pairs", seed="1"),
        artifacts.recipe_of("pairs", other=1),
    ]
    assert len(set(asked)) == 5


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, Path("x"), b"x", np.float32(1), np.zeros(2), {1: 2}, [1, [Path("x")]], lambda: 0]
)
def test_what_has_no_stable_form_bears_no_identity(value):
    with pytest.raises(TypeError, match=r"inputs\.thing.*cannot bear identity"):
        artifacts.recipe_of("pairs", thing=value)


def test_a_number_that_is_not_finite_bears_no_identity():
    with pytest.raises(ValueError, match="JSON"):
        artifacts.recipe_of("pairs", beta=float("nan"))


def test_importing_the_store_imports_no_engine():
    code = """
        import sys, infra.artifacts
        print(sorted({"torch", "transformers", "vllm", "ray", "prefect", "deepspeed"} & set(sys.modules)))
    """
    assert run_python(code).stdout.strip() == "[]"


def test_what_was_committed_is_found_and_read(store):
    prompt = Prompt.of((Message(role="user", content="hé"),), "short", {"source": {"line": 3}})
    group = Group(prompt=prompt, prompt_ids=(1, 2), candidates=())
    assert artifacts.find(store, "groups", "r1") is None
    made = artifacts.commit_rows(store, "groups", "r1", [group, group], Group, facts={"tokens": 3})
    assert artifacts.find(store, "groups", "r1") == made
    assert list(artifacts.read_rows(made, Group)) == [group, group]
    assert made.uri == f"{storage.canonical(store)}/objects/groups/r1"
    assert artifacts.store_of(made) == storage.canonical(store)


def test_the_record_explains_what_was_asked(store):
    asked = artifacts.asked("pairs", loss=DPO(), seed=3)
    parent = commit(store, "p", recipe="parent")
    made = commit(
        store,
        "a",
        "b",
        recipe=artifacts.recipe_of("pairs", loss=DPO(), seed=3),
        asked=asked,
        parents=[parent, "prompts/x"],
    )
    record = artifacts.record_of(made)
    assert record.asked == json.loads(json.dumps(asked))
    assert made.parents == ("pairs/parent", "prompts/x")
    assert (record.row_type, record.rows, len(record.files)) == ("Dropped", 2, 1)


def test_a_recipe_of_something_else_is_refused(store):
    with pytest.raises(ValueError, match="is not the recipe of what was asked"):
        commit(store, "a", recipe="r1", asked=artifacts.asked("pairs", seed=3))


def test_facts_and_time_do_not_touch_the_digest(store):
    assert commit(store, "a", facts={"x": 1}).digest == commit(store, "a", recipe="r2").digest


def test_the_digest_is_the_same_on_every_store(store):
    """Worked by hand: SHA-256 of the one row's SHA-256."""
    row = hashlib.sha256(b'{"item":"a","reason":"tie","step":"select"}').hexdigest()
    assert commit(store, "a").digest == hashlib.sha256(row.encode()).hexdigest()


def test_equal_work_is_found_with_the_facts_of_the_first(store):
    first = commit(store, "a", facts={"writer": 1})
    assert commit(store, "a", facts={"writer": 2}) == first


def test_other_work_under_one_recipe_is_a_conflict_naming_both(store):
    first = commit(store, "a")
    other = commit(store, "b", recipe="r2")
    with pytest.raises(Conflict, match=f"pairs/r1 holds digest {first.digest}, this run made {other.digest}"):
        commit(store, "b")


def test_a_conflict_is_also_found_when_both_wrote_at_once(store, monkeypatch):
    first, find = commit(store, "a"), objects.find
    answers = iter([None])  # this writer looked before the other was done
    monkeypatch.setattr(objects, "find", lambda *args: next(answers, first) and find(*args))
    with pytest.raises(Conflict, match=f"pairs/r1 holds digest {first.digest}"):
        commit(store, "b")
    assert artifacts.find(store, "pairs", "r1") == first


def test_sixteen_racing_writers_make_one_record_and_get_one_artifact(store):
    start = Barrier(16)

    def write(writer: int) -> Artifact:
        start.wait()
        return commit(store, "a", "b", facts={"writer": writer})

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(write, range(16)))
    assert all(artifact == made[0] for artifact in made)
    assert artifacts.find(store, "pairs", "r1") == made[0]
    assert list(artifacts.read_rows(made[0], Dropped)) == dropped("a", "b")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[:-1], r"expected \d+ bytes, found \d+ bytes"),
        (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], r"expected sha256 \w{64}, found sha256 \w{64}"),
    ],
    ids=["cut", "one bit"],
)
def test_a_damaged_file_is_never_read(store, overwrite, damage, told):
    made = commit(store, "a")
    (path,) = data_files(store, made)
    overwrite(store, path, damage(storage.read_bytes(store, path)))
    with pytest.raises(UserError, match=f"{path} was changed.*{told}.*remove objects/pairs/r1"):
        list(artifacts.read_rows(made, Dropped))


def test_a_missing_file_is_told(store):
    made = commit(store, "a")
    storage.remove(store, data_files(store, made)[0])
    with pytest.raises(UserError, match=r"expected \d+ bytes, found nothing"):
        list(artifacts.read_rows(made, Dropped))


def test_a_damaged_record_is_told(store, overwrite):
    commit(store, "a")
    overwrite(store, "objects/pairs/r1/record.json", b'{"kind": "pairs"')
    with pytest.raises(UserError, match=r"objects/pairs/r1/record.json is damaged"):
        artifacts.find(store, "pairs", "r1")


def test_rows_of_another_type_are_not_read(store):
    with pytest.raises(TypeError, match="holds Dropped, not Prompt"):
        list(artifacts.read_rows(commit(store, "a"), Prompt))


def test_an_object_without_rows_is_whole(store):
    assert list(artifacts.read_rows(commit(store), Dropped)) == []
