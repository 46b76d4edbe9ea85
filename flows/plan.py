"""What a run would find and what it would make, without starting anything."""

from alignment.config import RunConfig
from flows.align import align
from tasks.forecast import Plan, forecast
from tasks.steps import NotMade, planning


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
