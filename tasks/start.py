"""What must hold before anything is made."""

from datetime import UTC
from typing import Any

from prefect.context import FlowRunContext

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.models import Scratch
from alignment.rewards import trained_models
from infra import artifacts
from infra.sources import read_pairs
from tasks.steps import planning, step_task


def named_for_schedule(config: RunConfig) -> RunConfig:
    """A flow run that a schedule fired bears the time it was planned for in its name: every night is a run of its
    own, and a retry goes on with that night's. Any other flow run keeps its name."""
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    if flow_run is None or not flow_run.auto_scheduled or flow_run.expected_start_time is None:
        return config
    return config.model_copy(update={"run": f"{config.run}-{flow_run.expected_start_time.astimezone(UTC):%Y%m%d-%H%M}"})


@step_task("start")
def start(config: RunConfig) -> None:
    """Check the store, and claim the run's name for this configuration.

    Raises UserError for a ``memory://`` store, which the processes of a run would not share.
    """
    if config.store.startswith("memory://"):
        raise UserError(
            f"store {config.store}: this process alone would see it, and a run has many; give a folder or s3://bucket"
        )
    artifacts.check_store(config.store)
    if isinstance(config.policy, Scratch):
        _read_pairs_to_learn_from(config)
    if planning.get() is None or config.run in artifacts.list_runs(config.store):
        artifacts.claim_run(config.store, config.run, identity(config))


def _read_pairs_to_learn_from(config: RunConfig) -> None:
    """UserError for a file that a reward model could not be trained on, minutes before a policy is there for it."""
    for name, reward in (("reward", config.reward), ("gold", config.gold)):
        for _, model in trained_models(reward, name) if reward is not None else ():
            if model.pairs is not None:
                read_pairs(model.pairs, limit=model.examples, skip_bad_rows=config.skip_bad_rows)


def identity(config: RunConfig) -> dict[str, Any]:
    """What makes two runs of one name the same run: everything but where and on what it runs."""
    return config.model_dump(mode="json", exclude={"store", "engine", "trainer", "skip_bad_rows"})
