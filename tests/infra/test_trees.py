"""Models: stored as they are, fetched whole or not at all, and never a pickle."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_rows import commit, data_files

from alignment.errors import Conflict, UserError
from alignment.types import Dropped
from infra import artifacts, trees


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "nested").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    (folder / "nested" / "vocab.txt").write_text("a\nb")
    return folder


def test_a_model_comes_back_file_by_file(store, model):
    made = artifacts.commit_tree(store, "policy", "r1", model, facts={"loss": 0.5})
    folder = artifacts.fetch_tree(made)
    files = {path.relative_to(model): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    assert artifacts.fetch_tree(made) == folder
    assert artifacts.commit_tree(store, "policy", "r1", model) == made


def test_a_local_model_is_opened_where_it_lies(tmp_path, model):
    made = artifacts.commit_tree(str(tmp_path / "store"), "policy", "r1", model)
    assert artifacts.fetch_tree(made).is_relative_to(made.uri)


def test_the_digest_of_a_tree_is_of_names_and_contents(store, model):
    digest = artifacts.commit_tree(store, "policy", "r1", model).digest
    assert artifacts.commit_tree(store, "policy", "r2", model).digest == digest
    (model / "config.json").rename(model / "other.json")
    assert artifacts.commit_tree(store, "policy", "r3", model).digest != digest
    with pytest.raises(Conflict, match="policy/r1 holds digest"):
        artifacts.commit_tree(store, "policy", "r1", model)


def test_a_damaged_model_is_never_opened(store, model, overwrite, monkeypatch):
    made = artifacts.commit_tree(store, "policy", "r1", model)
    path = next(path for path in data_files(store, made) if path.endswith("safetensors"))
    overwrite(store, path, b"x" * 256 * 64)
    monkeypatch.setattr(trees, "_verified", set())
    with pytest.raises(UserError, match=r"model.safetensors was changed .*sha256.*remove .*objects/policy/r1"):
        artifacts.fetch_tree(made)


def test_a_damaged_cache_is_told(s3_store, model, tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trees, "_verified", set())
    made = artifacts.commit_tree(s3_store, "policy", "r1", model)
    folder = artifacts.fetch_tree(made)
    (folder / "config.json").write_text("[]")
    trees._verified.clear()
    with pytest.raises(UserError, match=rf"{folder}/config.json was changed.*remove {folder} to fetch it again"):
        artifacts.fetch_tree(made)


def test_racing_fetches_leave_one_whole_copy(s3_store, model, tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    made = artifacts.commit_tree(s3_store, "policy", "r1", model)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: artifacts.fetch_tree(made), range(4)))
    assert len(folders) == 1
    assert os.listdir(tmp_path / "cache" / "trees") == [made.digest]


def test_a_cache_that_cannot_be_written_is_told(s3_store, model, monkeypatch):
    monkeypatch.setenv("RATCHET_CACHE", "/proc/cache")
    made = artifacts.commit_tree(s3_store, "policy", "r1", model)
    with pytest.raises(UserError, match="set RATCHET_CACHE"):
        artifacts.fetch_tree(made)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "nested/b.pth", "c.pkl"])
def test_a_pickle_is_refused(tmp_path, model, name):
    (model / name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"{name} is a pickle"):
        artifacts.commit_tree(str(tmp_path / "store"), "policy", "r1", model)
    assert not (tmp_path / "store").exists()


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_followed(tmp_path, model):
    store, secret = str(tmp_path / "store"), tmp_path / "secret"
    secret.write_text("x")
    (model / "alias.json").symlink_to("config.json")
    made = artifacts.commit_tree(store, "policy", "r1", model)
    assert (artifacts.fetch_tree(made) / "alias.json").read_text() == "{}"
    for target in (secret, tmp_path, tmp_path / "absent"):
        (model / "escape").symlink_to(target)
        with pytest.raises(UserError, match="escape is a link"):
            artifacts.commit_tree(store, "policy", "r2", model)
        (model / "escape").unlink()


def test_no_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        artifacts.commit_tree(str(tmp_path / "store"), "policy", "r1", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        artifacts.commit_tree(str(tmp_path / "store"), "policy", "r1", tmp_path / "empty")


def test_rows_are_no_tree_and_a_tree_has_no_rows(store, model):
    with pytest.raises(TypeError, match="holds rows of Dropped"):
        artifacts.fetch_tree(commit(store, "a"))
    with pytest.raises(TypeError, match="holds files, not Dropped"):
        list(artifacts.read_rows(artifacts.commit_tree(store, "policy", "r1", model), Dropped))
