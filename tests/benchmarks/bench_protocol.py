"""What the artifact protocol costs: the seconds that the driver of a whole run spends in it, beside the run's own.

Every call is timed, in every thread, with the rows that it reads, writes and digests. The times are added up although
some pass while engines work, so the share is an upper bound. Run by path, with ``-s`` for the figures; it takes as long
as ``make quickstart``.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECIPE = os.environ.get("RATCHET_BENCH_RECIPE", "quickstart")
SHARE = 0.05
PURE = {"asked", "recipe_of", "store_of"}
"""They touch no store."""


def test_the_protocol_takes_a_small_part_of_a_run(tmp_path: Path):
    environment = {"PYTHONPATH": str(ROOT), "RATCHET_CACHE": str(tmp_path / "cache")}
    began = time.monotonic()
    subprocess.run(
        [sys.executable, __file__, str(tmp_path / "calls.json"), str(tmp_path / "runs")],
        cwd=tmp_path,
        env={**os.environ, **environment},
        check=True,
    )
    took = time.monotonic() - began
    seconds, calls = json.loads((tmp_path / "calls.json").read_text())
    spent = sum(seconds.values())
    most = ", ".join(f"{name} {s:.2f} s in {calls[name]} calls" for name, s in Counter(seconds).most_common(5))
    print(f"\n{RECIPE}: {spent:.2f} s of {took:.0f} s in the protocol, {spent / took:.2%}: {most}")
    assert calls["commit_rows"] > 0
    assert spent < SHARE * took


def timed(name: str, call: Callable[..., Any], seconds: Counter[str], calls: Counter[str]) -> Callable[..., Any]:
    @wraps(call)
    def calling(*args: Any, **more: Any) -> Any:
        began = time.monotonic()
        answer = call(*args, **more)
        seconds[name] += time.monotonic() - began
        calls[name] += 1
        return reading(answer) if name == "read_rows" else answer

    def reading(rows: Iterator[Any]) -> Iterator[Any]:
        while True:
            began = time.monotonic()
            row = next(rows, None)
            seconds[name] += time.monotonic() - began
            if row is None:
                return
            yield row

    return calling


def main(out: Path, store: str) -> None:
    from tasks.console import quiet_engines

    quiet_engines()
    from flows import cli
    from infra import artifacts

    seconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for name in artifacts.__all__:
        if name.islower() and name not in PURE:
            setattr(artifacts, name, timed(name, getattr(artifacts, name), seconds, calls))
    try:
        cli.main(["run", RECIPE, "--store", store])
    finally:
        out.write_text(json.dumps([seconds, calls]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
