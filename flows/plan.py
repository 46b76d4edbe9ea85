"""What a run would find and what it would make, without starting anything."""

from alignment.config import RunConfig
from alignment.summary import RunSummary
from flows.align import align
from tasks import console
from tasks.forecast import Plan, forecast
from tasks.history import is_decided, read_run
from tasks.steps import NotMade, planning


def finished(config: RunConfig) -> RunSummary | None:
    """The run, where it is whole and every step of it is found; else None. Starts no engine and no orchestrator."""
    if not is_decided(config):
        return None
    planned = plan(config)
    if planned.first_missing is not None:
        return None
    for step in planned.found:
        console.found(step.folder, step.step)
    return read_run(config.store, config.run)


def plan(config: RunConfig) -> Plan:
    """Follow the flow as far as its steps are found; from the first one that is not, everything would be made.

    Checks what can be checked before an engine starts, and raises the run's own UserErrors.
    """
    found = planning.set([])
    try:
        align.fn(config)
        missing = None
    except NotMade as first:
        missing = first
    finally:
        steps = planning.get() or []
        planning.reset(found)
    return forecast(config, steps, missing)
