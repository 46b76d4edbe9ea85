"""Whole runs one after the other in one driver, which share its Prefect server, its Ray and the engines it keeps warm:
``several_runs.py FILE``, a JSON list of [name, words] for the command line of ``ratchet``.

A command that fails does not stop the next. What each printed is in ``NAME.txt`` beside the file, its status last.
``claims FILE`` stands for the two cells of one of the sandbox's claims at the smallest size, outcomes by run in FILE.
"""

import json
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


def main(file: Path) -> None:
    from flows import cli

    for name, words in json.loads(file.read_text()):
        with (file.parent / f"{name}.txt").open("w") as log, redirect_stdout(log), redirect_stderr(log):
            if words[0] == "claims":
                status = status_of(lambda words=words: claims(*words[1:]))
            else:
                status = status_of(lambda words=words: cli.main(words))
            print(f"status {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
