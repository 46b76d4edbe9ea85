"""Ways to damage a store behind the protocol's back, and what must be told of each."""

import json
from collections.abc import Callable
from typing import NamedTuple

from small_runs import SmallRun

from infra import artifacts, storage

Overwrite = Callable[[str, str, bytes], None]
Do = Callable[[SmallRun, Overwrite], None]
Path = Callable[[SmallRun], str]


class Damage(NamedTuple):
    """A way to damage a run's store, and what must be told of it."""

    do: Do
    at: Path
    expected: str
    found: str
    remedy: str = "remove .*/objects/.* and run again to make it anew"


def folder(run: SmallRun, name: str) -> str:
    return f"objects/{run.key(name)}"


def data(run: SmallRun, name: str, ending: str = "") -> str:
    files = artifacts.record_of(run.made[name]).files
    return f"{folder(run, name)}/{next(file.path for file in files if file.path.endswith(ending))}"


def edited(path: Path, change: Callable[[dict], object]) -> Do:
    """Change a JSON file of the store."""

    def edit(run: SmallRun, overwrite: Overwrite) -> None:
        value = json.loads(storage.read_bytes(run.store, path(run)))
        change(value)
        overwrite(run.store, path(run), json.dumps(value).encode())

    return edit


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> Do:
    return lambda run, overwrite: overwrite(run.store, path(run), change(storage.read_bytes(run.store, path(run))))


def removed(path: Path) -> Do:
    return lambda run, _: storage.remove(run.store, path(run))


def one_bit(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def pairs(run: SmallRun) -> str:
    return data(run, "round-000/select")


def weights(run: SmallRun) -> str:
    return data(run, "round-000/train", "safetensors")


def shard_data(run: SmallRun) -> str:
    return data(run, "round-000/score", "shard-00001.parquet")


def shard(run: SmallRun) -> str:
    return f"{folder(run, 'round-000/score')}/shard-00001.json"


def record(name: str) -> Path:
    return lambda run: f"{folder(run, name)}/record.json"


def file_of_run(path: str) -> Path:
    return lambda run: f"runs/{run.run}/{path}"


AGAIN = "run 'small' again to make it anew"
OWN = "remove it and run 'small' again to have it anew"
DAMAGES = {
    "a bit of rows": Damage(rewritten(pairs, one_bit), pairs, r"sha256 \w{64}", r"sha256 \w{64}"),
    "rows cut": Damage(rewritten(pairs, lambda content: content[:-1]), pairs, r"\d+ bytes", r"\d+ bytes"),
    "rows gone": Damage(removed(pairs), pairs, r"\d+ bytes", "nothing"),
    "a bit of a model": Damage(rewritten(weights, one_bit), weights, r"sha256 \w{64}", r"sha256 \w{64}"),
    "a model cut": Damage(rewritten(weights, lambda content: content[:7]), weights, r"\d+ bytes", "7 bytes"),
    "a model's file gone": Damage(removed(weights), weights, r"\d+ bytes", "nothing"),
    "a bit of a shard": Damage(rewritten(shard_data, one_bit), shard_data, r"sha256 \w{64}", r"sha256 \w{64}"),
    "a shard's record gone": Damage(removed(shard), shard, "the record of a shard", "nothing"),
    "a shard's digest": Damage(
        edited(shard, lambda value: value.update(digest="f" * 64)), shard, "digest f{64}", r"digest \w{64} of its rows"
    ),
    "a shard's row digest": Damage(
        edited(shard, lambda value: value["row_digests"].reverse() or value["row_digests"].append("0")),
        shard,
        r"digest \w{64}",
        r"digest \w{64} of the row digests it lists",
    ),
    "a shard's number": Damage(edited(shard, lambda value: value.update(index=7)), shard, "shard 1", "shard 7"),
    "a shard's rows": Damage(edited(shard, lambda value: value.update(rows=9)), shard, "9 rows", "1 rows"),
    "a record cut": Damage(
        rewritten(record("round-001/train"), lambda content: content[:40]),
        record("round-001/train"),
        "a readable ObjectRecord",
        "Invalid JSON.*",
    ),
    "a record's rows": Damage(
        edited(record("round-001/select"), lambda value: value.update(rows=4)),
        record("round-001/select"),
        "4 rows",
        "3 rows",
    ),
    "what was asked": Damage(
        edited(record("round-001/select"), lambda value: value["asked"]["inputs"].update(step="other")),
        record("round-001/select"),
        r"recipe \w{64}",
        r"recipe \w{64} of what was asked",
    ),
    "rows of a later version": Damage(
        edited(record("round-001/select"), lambda value: value.update(row_type="Verse")),
        record("round-001/select"),
        "rows of Prompt, .*",
        "Verse",
        "use the version of the code that wrote it",
    ),
    "a promotion taken back": Damage(
        edited(file_of_run("promoted.json"), lambda value: value["turns"].reverse()),
        file_of_run("promoted.json"),
        "rounds that only rise",
        r"rounds \[1, 0\]",
        OWN,
    ),
    "a promotion of nothing": Damage(
        edited(file_of_run("promoted.json"), lambda value: value["turns"][0]["to"].update(recipe="gone")),
        file_of_run("promoted.json"),
        r"policy/gone with digest \w{64}",
        "nothing",
        AGAIN,
    ),
    "a name of nothing": Damage(
        edited(file_of_run("round-001/select.json"), lambda value: value.update(recipe="gone")),
        file_of_run("round-001/select.json"),
        r"pairs/gone with digest \w{64}",
        "nothing",
        AGAIN,
    ),
    "a name that is no recipe": Damage(
        edited(file_of_run("round-001/select.json"), lambda value: value.update(recipe="../../x")),
        file_of_run("round-001/select.json"),
        "a readable name",
        r"recipe String should match pattern '.*'",
        OWN,
    ),
    "a name of other content": Damage(
        edited(file_of_run("round-001/select.json"), lambda value: value.update(digest="e" * 64)),
        file_of_run("round-001/select.json"),
        r"pairs/\w{64} with digest e{64}",
        r"digest \w{64}",
        "if the object is right, remove this file and run 'small' again",
    ),
    "a name cut": Damage(
        rewritten(file_of_run("round-001/select.json"), lambda content: content[:9]),
        file_of_run("round-001/select.json"),
        "a readable name",
        "Invalid JSON.*",
        OWN,
    ),
    "a manifest cut": Damage(
        rewritten(file_of_run("round-001/manifest.json"), lambda content: content[:9]),
        file_of_run("round-001/manifest.json"),
        "a readable manifest",
        "Invalid JSON.*",
        OWN,
    ),
    "a manifest of another round": Damage(
        edited(file_of_run("round-001/manifest.json"), lambda value: value.update(round=5)),
        file_of_run("round-001/manifest.json"),
        "the manifest of round-001",
        "round 5",
        OWN,
    ),
    "a manifest of nothing": Damage(
        edited(file_of_run("round-001/manifest.json"), lambda value: value["evaluation"].update(recipe="gone")),
        file_of_run("round-001/manifest.json"),
        r"groups/gone with digest \w{64}",
        "nothing",
        AGAIN,
    ),
    "a note cut": Damage(
        rewritten(file_of_run("round-001/notes/select.json"), lambda content: content[:9]),
        file_of_run("round-001/notes/select.json"),
        "a readable note",
        "Invalid JSON.*",
        OWN,
    ),
    "a note of no step": Damage(
        removed(file_of_run("round-001/select.json")),
        file_of_run("round-001/notes/select.json"),
        "a step named by runs/small/round-001/select.json",
        "nothing",
        OWN,
    ),
    "a configuration cut": Damage(
        rewritten(file_of_run("config.json"), lambda content: content[:9]),
        file_of_run("config.json"),
        "a readable configuration",
        "Invalid JSON.*",
        OWN,
    ),
    "a configuration gone": Damage(
        removed(file_of_run("config.json")),
        file_of_run("config.json"),
        "the run's configuration",
        "nothing",
        "run 'small' again with its recipe",
    ),
}
