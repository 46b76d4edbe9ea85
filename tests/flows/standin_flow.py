"""A flow of the real one's signature that says which configuration reached it."""

import os
from pathlib import Path

from prefect import flow

from alignment.config import RunConfig
from tasks.start import named_for_schedule


@flow(name="standin")
def standin(config: RunConfig) -> None:
    config = named_for_schedule(config)
    with Path(os.environ["STANDIN_LOG"]).open("a") as log:
        log.write(f"{config.run} {config.rounds} {type(config).__name__}\n")
