"""What a store holds once all is done: that which no crash, retry or rival may change."""

import hashlib
import json
from pathlib import Path
from typing import Any

VOLATILE = {"created", "seconds", "engine_seconds", "phases", "shards_found", "shards_made", "reused", "finished"}
"""Clocks, and who came first."""


Settled = dict[str, Any]
"""By path: what is there, without clocks and attempt keys."""


def settled(store: Path) -> Settled:
    """Every record, shard, name, note, manifest and pointer of a store.

    Data files count by their names and by the digest of the bytes that are there, which must be those the record says.
    What no record speaks of is litter, and left out.
    """
    return {
        str(path.relative_to(store)): plain(json.loads(path.read_text().replace(str(store), "STORE")), path.parent)
        for folder in ("objects", "runs")
        for path in sorted((store / folder).rglob("*.json"))
        if "data" not in path.parts and not path.name.startswith(".")
    }


def plain(value: Any, folder: Path | None = None) -> Any:
    """JSON without clocks; of files that lie in ``folder``, last name and digest."""
    match value:
        case {"path": str(path), "size": int(size), "sha256": str(sha256)} if folder is not None:
            data = (folder / path).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256), (
                f"{folder / path} is not as recorded"
            )
            return [path.rsplit("/", 1)[-1], sha256]
        case dict():
            return {k: plain(v, folder) for k, v in value.items() if k not in VOLATILE}
        case list():
            return [plain(v, folder) for v in value]
    return value
