"""Runs the two cells of one claim at the smallest size: ``claims_driver.py STORE FILE``, outcomes by run to FILE."""

import json
import sys
from pathlib import Path

from tasks.console import quiet_engines

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


def main(store: str, file: str) -> None:
    quiet_engines()
    from alignment.testbed.claims_sandbox import matching_readings
    from flows.claims import BASE, run_cells
    from tasks.recipe import load_config

    words = [word for path, value in SIZES.items() for word in (f"--{path}", value)]
    base = load_config(str(BASE), words, shipped=BASE.parent).model_copy(update={"store": store})
    outcomes = run_cells(matching_readings("prs sandbox over"), base)
    found = {cell.run: outcome.model_dump(mode="json") for cell, outcome in outcomes.items()}
    Path(file).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
