"""Odd names on the command line: one printable line, exit status 2, and nothing written."""

from pathlib import Path

import pytest
from odd_names import ODD_NAMES

from flows.cli import main

odd = pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES.keys())
RECIPE = """
policy = "m"
prompts = { type = "file", path = "p.jsonl" }
reward = { type = "scalar_head", model = "r" }
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe, and a store with one run."""
    from infra import artifacts
    from tasks.recipe import parse_config
    from tasks.start import identity

    folder = tmp_path / "deep" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / "recipe.toml").write_text(RECIPE)
    artifacts.claim_run("runs", "r", identity(parse_config(RECIPE.encode(), [], where="r", run="r")))
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(words)
    said = capsys.readouterr()
    assert end.value.code == 2, said.err
    assert said.out == ""
    (line,) = said.err.rstrip("\n").split("\n")
    assert line.startswith("ratchet: ")
    assert line.isprintable()
    return line


@odd
def test_a_run_of_such_a_name_is_not_looked_for(here: Path, capsys, name: str):
    before = files(here)
    for words in (("show", name), ("report", name), ("export", name, "out"), ("fork", name, "new")):
        assert "run name" in refused(capsys, *words, "--store", "runs")
    assert files(here) == before


@odd
def test_a_run_of_such_a_name_is_not_begun(here: Path, capsys, name: str):
    before = files(here)
    for words in (("fork", "r", name, "--store", "runs"), ("plan", "recipe.toml", "--run", name)):
        assert "run: String should match pattern" in refused(capsys, *words)
    (here / "deep" / "here" / "named.toml").write_text(f"run = {toml(name)}\n{RECIPE}")
    assert "run" in refused(capsys, "plan", "named.toml")
    assert files(here).keys() - before.keys() == {here / "deep" / "here" / "named.toml"}


def toml(text: str) -> str:
    """Every character as TOML escapes it."""
    return '"' + "".join(f"\\u{ord(c):04x}" for c in text) + '"'


@pytest.mark.parametrize(
    "name", ["a\0b", "a\nb", "\x1b[2J", "x" * 5000, "/proc/nothing/there", "recipe.toml", "a\u202eb"]
)
def test_an_export_goes_to_no_such_folder_and_a_report_to_no_such_file(here: Path, capsys, name: str):
    from infra import artifacts
    from infra.runs import promote

    (here / "model").mkdir()
    (here / "model" / "config.json").write_text("{}")
    promote("runs", "r", artifacts.commit_tree("runs", "policy", "p", here / "model"), 0, None)
    before = files(here)
    refused(capsys, "export", "r", name, "--store", "runs")
    if name != "recipe.toml":  # a file may be replaced by a report
        refused(capsys, "report", "r", "--store", "runs", "--out", name)
    assert files(here) == before


@odd
def test_a_recipe_of_such_a_name_is_not_found_or_not_read(here: Path, capsys, name: str):
    before = files(here)
    if name != "/etc/passwd":
        refused(capsys, "plan", name)
    assert files(here) == before
