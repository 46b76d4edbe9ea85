"""Names that come from outside are refused in one line wherever they come in, and lead nowhere."""

import json
from pathlib import Path

import pytest
from odd_names import ODD_NAMES
from small_rows import commit

from alignment.errors import UserError
from alignment.types import Artifact
from infra import artifacts, objects, storage
from infra.names import is_plain, is_run_name

odd = pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES.keys())
SHA256 = "0" * 64


def refused(told: pytest.ExceptionInfo[UserError]) -> str:
    said = str(told.value)
    assert said.isprintable()
    assert len(said) < 600
    return said


@odd
def test_a_run_has_no_such_name(store, name: str):
    made = commit(store, "a")
    for act in (
        lambda: artifacts.claim_run(store, name, {}),
        lambda: artifacts.read_config(store, name),
        lambda: artifacts.name(store, name, "round-000/groups", made),
        lambda: artifacts.named(store, name, "round-000/groups"),
        lambda: artifacts.promoted(store, name),
        lambda: artifacts.promote(store, name, made, 0, None),
    ):
        with pytest.raises(UserError, match=r"^run name '.*': use up to 200") as told:
            act()
        refused(told)
    assert storage.folders(store, "runs") == []


def test_names_that_people_give_runs_are_fine():
    assert all(map(is_run_name, ("tiny", "a..b", "Nightly_7.2-20261231-0300", "x" * 200)))
    assert all(map(is_plain, ("data/0f/model.safetensors", "1_Pooling/config.json", "my model, final (2).json"[:16])))


@pytest.mark.parametrize("name", ["a\nb", "r\u0430tchet", "a b", "x" * 201])
def test_a_folder_among_the_runs_that_no_run_made_is_told(tmp_path: Path, name: str):
    (tmp_path / "runs" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=r"runs/ holds '.*', which is no run's name; rename or remove it") as told:
        artifacts.list_runs(str(tmp_path))
    refused(told)


def written(store: str, overwrite, recipe: str = "r1", /, **changes: object) -> Artifact:
    """An object whose record someone else has written."""
    made = commit(store, "a", recipe=recipe)
    path = f"{objects.folder_of(made.kind, made.recipe)}/record.json"
    record = json.loads(storage.read_bytes(store, path))
    overwrite(store, path, json.dumps({**record, **changes}).encode())
    return made


@odd
def test_a_foreign_record_lists_no_such_file(store, overwrite, name: str):
    path = f"data/0/{name}" if name not in ("/etc/passwd", "../escape", "..", "s3://other/escape") else name
    made = written(store, overwrite, files=[{"path": path, "size": 1, "sha256": SHA256}])
    with pytest.raises(UserError, match=r"record.json is damaged \(files.0.path .*no plain name of a file") as told:
        artifacts.find(store, made.kind, made.recipe)
    refused(told)


@odd
def test_a_foreign_record_has_no_such_digest_or_recipe(store, overwrite, name: str):
    """Both become folders: of this machine's cache, and of the store."""
    for field in ("digest", "recipe"):
        made = written(store, overwrite, f"other-{field}", **{field: name})
        with pytest.raises(UserError, match=rf"record.json is damaged \({field} ") as told:
            artifacts.find(store, made.kind, made.recipe)
        refused(told)


@odd
def test_a_foreign_pointer_leads_to_no_such_object(store, name: str):
    pointer = {"kind": "pairs", "recipe": name, "digest": SHA256}
    storage.write_all(store, "runs/r", {"promoted.json": json.dumps({"turns": [{"round": 0, "to": pointer}]}).encode()})
    storage.write_all(store, "runs/r/round-000", {"groups.json": json.dumps(pointer).encode()})
    for read in (lambda: artifacts.promoted(store, "r"), lambda: artifacts.named(store, "r", "round-000/groups")):
        with pytest.raises(UserError, match="is damaged") as told:
            read()
        refused(told)


def test_a_record_that_lies_in_anothers_place_is_not_taken_for_it(store, overwrite):
    made, other = commit(store, "a"), commit(store, "b", recipe="r2")
    data = storage.read_bytes(store, f"{objects.folder_of(other.kind, other.recipe)}/record.json")
    overwrite(store, f"{objects.folder_of(made.kind, made.recipe)}/record.json", data)
    with pytest.raises(
        UserError, match=f"is the record of {other.kind}/r2, not of {made.kind}/{made.recipe}; remove it"
    ):
        artifacts.find(store, made.kind, made.recipe)


def model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_record_of_a_tree_that_names_files_of_another_digest_is_refused(s3_store, tmp_path, overwrite, monkeypatch):
    """Else a store that nobody trusts could fill this machine's cache under a digest that somebody trusts."""
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    made = artifacts.commit_tree(s3_store, "policy", "r1", model(tmp_path / "model"))
    path = "objects/policy/r1/record.json"
    record = json.loads(storage.read_bytes(s3_store, path))
    lying = {**record, "files": [{**record["files"][0], "sha256": SHA256}]}
    overwrite(s3_store, path, json.dumps(lying).encode())
    with pytest.raises(UserError, match=f"its files are not those of digest {made.digest}; remove that object"):
        artifacts.fetch_tree(made)
    assert not (tmp_path / "cache").exists()


def test_a_record_of_a_tree_whose_files_lie_elsewhere_is_refused(store, tmp_path, overwrite):
    made = artifacts.commit_tree(store, "policy", "r1", model(tmp_path / "model"))
    path = "objects/policy/r1/record.json"
    record = json.loads(storage.read_bytes(store, path))
    stray = {"path": "record.json", "size": 1, "sha256": SHA256}
    overwrite(store, path, json.dumps({**record, "files": [*record["files"], stray]}).encode())
    with pytest.raises(UserError, match="its files are not those of digest"):
        artifacts.fetch_tree(made)


@pytest.mark.parametrize("name", ["a\nb.json", "..\\config.json", "t\u043ekenizer.json", "x" * 240, "\x1b[2J"])
def test_a_model_has_no_file_of_such_a_name(tmp_path, name: str):
    folder = model(tmp_path / "model")
    (folder / name).write_text("{}")
    with pytest.raises(UserError, match=r"holds '.*', which is no plain file name") as told:
        artifacts.commit_tree(str(tmp_path / "store"), "policy", "r1", folder)
    refused(told)
    assert not (tmp_path / "store").exists()


def test_nothing_is_written_before_a_name_is_looked_at(store):
    with pytest.raises(UserError, match="is no plain file name"):
        objects.write_files(store, "policy", "r1", {"../../../escape": b"x"})
    assert storage.folders(store, "objects") == []
