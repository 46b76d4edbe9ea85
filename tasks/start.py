"""What must hold before anything is made."""

from typing import Any

from alignment.config import RunConfig
from infra import artifacts
from tasks.steps import planning, step_task


@step_task("start")
def start(config: RunConfig) -> None:
    """Check the store, and claim the run's name for this configuration."""
    artifacts.check_store(config.store)
    if planning.get() is None or config.run in artifacts.list_runs(config.store):
        artifacts.claim_run(config.store, config.run, identity(config))


def identity(config: RunConfig) -> dict[str, Any]:
    """What makes two runs of one name the same run: everything but where and on what it runs."""
    return config.model_dump(mode="json", exclude={"store", "engine", "trainer", "skip_bad_rows"})
