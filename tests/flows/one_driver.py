"""Commands of ``ratchet`` one after the other in one process, which share what it imported, its Prefect server, its Ray
and the engines it keeps warm. ``whole_runs.Driver`` is the other end.

A line of standard input is a command: ``{"words", "cwd", "out"}``, and its answer a line with its exit status; what it
printed is in the file ``out``. ``claims STORE FILE`` stands for the two cells of one of the sandbox's claims at the
smallest size, with their outcomes in FILE.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

SMALL = "{ hidden = 64, heads = 2, layers = 2, feed_forward = 128 }"
SIZES = {
    "policy.examples": "400",
    "policy.learning_rate": "0.015",
    "policy.batch_tokens": "1024",
    "policy.architecture": SMALL,
    "labels.prompts": "40",
    "prompts.count": "40",
    "sampler.n": "4",
    "sampler.decoding.max_tokens": "48",
    "reward.model.examples": "100",
    "reward.model.architecture": SMALL,
    "reward.model.epochs": "1",
    "reward.model.learning_rate": "0.01",
    "select.num_accepted": "2",
    "evaluate.n": "2",
    "evaluate.decoding.max_tokens": "48",
    "max_missing": "1.0",
    "engine.shard_prompts": "8",
}


def claims(store: str, file: str) -> None:
    from alignment.testbed.claims_sandbox import matching_readings
    from flows.claims import BASE, run_cells
    from tasks.console import quiet_engines
    from tasks.recipe import load_config

    quiet_engines()
    words = [word for path, value in SIZES.items() for word in (f"--{path}", value)]
    base = load_config(str(BASE), words, shipped=BASE.parent).model_copy(update={"store": store})
    outcomes = run_cells(matching_readings("prs sandbox over"), base)
    found = {cell.run: outcome.model_dump(mode="json") for cell, outcome in outcomes.items()}
    Path(file).write_text(json.dumps(found, indent=1))


def status_of(call: Callable[[], object]) -> int:
    try:
        call()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    from flows import cli

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # engines print where they like
    for line in sys.stdin:
        asked = json.loads(line)
        words = asked["words"]
        os.chdir(asked["cwd"])
        with Path(asked["out"]).open("w") as out, redirect_stdout(out), redirect_stderr(out):
            if words[0] == "claims":
                status = status_of(lambda words=words: claims(*words[1:]))
            else:
                status = status_of(lambda words=words: cli.main(words))
        print(status, file=answers)


if __name__ == "__main__":
    main()
