"""The commands on a store, as they are typed: what they print, and their exit status."""

import json
import os
import time
from pathlib import Path

import pytest
from small_runs import SmallRun, small_run

from flows import cli
from infra import artifacts, storage

SAID = "11 objects, 11 names in 1 run, 19 files of"


@pytest.fixture
def run(tmp_path: Path) -> SmallRun:
    return small_run(str(tmp_path / "store"), tmp_path / "made", rounds=2)


@pytest.fixture
def ratchet(capsys: pytest.CaptureFixture[str]):
    def call(*words: str) -> tuple[int, str, str]:
        """Exit status, and what was printed on each of the two channels."""
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        return ended.value.code, *capsys.readouterr()

    return call


def test_a_sound_store_is_verified_however_it_is_given(run: SmallRun, ratchet, monkeypatch):
    monkeypatch.chdir(Path(run.store).parent)
    for words in ([run.store], [run.store, "small"], ["store"], ["--store", run.store], ["--store", "store", "small"]):
        status, said, _ = ratchet("verify", *words)
        assert (status, said.startswith(SAID)) == (0, True), words
        assert said.endswith("all is as it was recorded.\n")


def test_everything_wrong_is_a_line_and_the_status_is_1(run: SmallRun, ratchet):
    storage.remove(run.store, f"objects/{run.key('round-001/select')}")
    storage.remove(run.store, "runs/small/round-000/train.json")
    status, said, _ = ratchet("verify", run.store)
    lines = said.splitlines()
    assert status == 1
    assert len(lines) == 4
    assert lines[0].startswith(f"{run.store}/objects/{run.key('round-001/train')}/record.json: expected parent pairs/")
    assert lines[-1].startswith("10 objects, 10 names in 1 run, 18 files of")
    assert lines[-1].endswith("3 problems.")
    status, said, _ = ratchet("verify", run.store, "--json")
    told = json.loads(said)
    assert (status, len(told["problems"]), told["objects"]) == (1, 3, 10)
    assert set(told["problems"][0]) == {"at", "expected", "found", "remedy"}


def test_litter_and_unfinished_objects_are_told_and_are_no_error(run: SmallRun, ratchet):
    storage.write_all(run.store, "objects/pairs/never/data/0", {"rows.parquet": b"123"})
    status, said, _ = ratchet("verify", run.store)
    assert status == 0
    assert said.endswith("1 file of 3 bytes left by killed writers: ratchet gc removes what has grown old.\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["verify", "{store}x"], "holds neither objects nor runs; check its address"),
        (["verify", "{store}", "x"], "has no run 'x'; it has: small"),
        (["verify", "{store}", "small", "--store", "{store}"], "two stores are given"),
        (["lineage", "pears/x", "--store", "{store}"], "pears/x: not an artifact"),
        (["lineage", "policy/x", "--store", "{store}"], "has no object policy/x"),
        (["lineage", "x", "--run", "small", "--store", "{store}"], "run 'small' in store {store} has no step 'x'"),
        (["gc", "{store}x"], "holds neither objects nor runs; check its address"),
        (["gc", "{store}", "--older-than", "30m"], "--older-than 30m: an age below 1h"),
        (["gc", "{store}", "--older-than", "0d"], "--older-than 0d: an age below 1h"),
        (["gc", "{store}", "--older-than", "7 days"], "--older-than 7 days: not an age; write 7d, 12h, 90m, 2w or 0"),
        (["gc", "{store}", "--older-than", "0"], "--older-than 0: store {store} has 1 run, such as small"),
        (["gc", "gs://x"], "gs:// is not supported"),
    ],
)
def test_bad_input_is_told_in_one_line_with_status_2(run: SmallRun, ratchet, words: list[str], told: str):
    status, _, said = ratchet(*(word.format(store=run.store) for word in words))
    assert status == 2
    assert told.format(store=run.store) in said
    assert said.count("\n") == 1


def test_a_lineage_is_printed_drawn_and_given_as_json(run: SmallRun, ratchet, tmp_path: Path):
    key, out = run.key("round-001/train"), tmp_path / "l.svg"
    status, said, _ = ratchet("lineage", f"{run.store}/objects/{key}", "--out", str(out))
    assert (status, said.splitlines()[0]) == (
        0,
        f"policy {run.made['round-001/train'].recipe[:12]}  small/round-001/train",
    )
    assert out.read_text().startswith("<svg")
    at = ("--store", run.store, "--json")
    for words in ([f"{run.store}/objects/{key}"], [key[:15]], ["round-001/train", "--run", "small"]):
        status, said, _ = ratchet("lineage", *words, *at)
        told = json.loads(said)
        assert (status, told["artifact"], len(told["nodes"])) == (0, key, 11)


def test_a_lineage_with_a_missing_object_has_status_1(run: SmallRun, ratchet):
    storage.remove(run.store, f"objects/{run.key('start/prompts')}")
    status, said, _ = ratchet("lineage", "round-001/train", "--run", "small", "--store", run.store)
    assert status == 1
    assert said.count("missing") == 2


def test_a_dry_sweep_tells_what_the_real_one_removes(run: SmallRun, ratchet):
    for found in Path(run.store, "objects").rglob("record.json"):
        record = json.loads(found.read_text())
        found.write_text(json.dumps(record | {"created": "2026-01-01T00:00:00+00:00"}))
    storage.write_all(run.store, f"objects/{run.key('start/policy')}/data/0", {"x": b"12"})
    os.utime(Path(run.store, f"objects/{run.key('start/policy')}/data/0/x"), (0, 0))
    for name in ("round-001/train.json", "promoted.json", "round-001/manifest.json"):
        storage.remove(run.store, f"runs/small/{name}")
    size = sum(file.stat().st_size for file in Path(run.store, "objects", run.key("round-001/train")).rglob("*.*"))

    _, dry, _ = ratchet("gc", run.store, "--dry-run")
    lines = dry.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["object", "litter"]
    assert lines[0].endswith(f"{run.store}/objects/{run.key('round-001/train')}")
    assert "2026-01-01" in lines[0]
    assert lines[-1].startswith("1 object, 1 leftover would go, ")
    assert lines[-1].endswith("; 10 objects stay.")
    told = json.loads(ratchet("gc", run.store, "--dry-run", "--json")[1])
    assert [one["bytes"] for one in told["gone"]] == [size, 2]

    _, real, _ = ratchet("gc", run.store)
    assert real == dry.replace("would go", "went")
    assert ratchet("gc", run.store)[:2] == (0, "Nothing went; 10 objects stay.\n")


def test_an_age_of_an_hour_spares_what_is_younger(run: SmallRun, ratchet):
    storage.remove(run.store, "runs/small")
    assert ratchet("gc", run.store, "--older-than", "1h")[1] == "Nothing went; 11 objects stay.\n"


def test_a_store_without_any_run_can_be_swept_at_once(run: SmallRun, ratchet):
    storage.remove(run.store, "runs/small")
    time.sleep(0.01)
    status, said, _ = ratchet("gc", run.store, "--older-than", "0")
    assert (status, said.splitlines()[-1].split(";")[1]) == (0, " 0 objects stay.")
    assert artifacts.find(run.store, "policy", run.made["start/policy"].recipe) is None
