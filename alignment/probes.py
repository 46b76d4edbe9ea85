"""Probes: claims that are measured where they are used. What one measured, and what one that failed had compared."""

from collections.abc import Mapping

from pydantic import JsonValue

from alignment.errors import UserError
from alignment.types import Record


class Probe(Record):
    """What a probe measured."""

    name: str
    worst: float
    """Largest difference seen."""
    mean: float
    bound: float
    count: int
    """Numbers compared."""


class Evidence(Record):
    """What a probe that failed had compared, kept in the run's folder."""

    probe: str
    said: str
    """The error, in one line."""
    numbers: Mapping[str, float | None] = {}
    """Such as ``worst``, ``bound`` and the two that differ most; None is no number."""
    compared: tuple[Mapping[str, JsonValue], ...] = ()
    """Everything that was compared, a row each, with both sides."""


class ProbeFailed(UserError):
    """Something is not what it claims to be; nothing made with it is believed."""

    def __init__(self, said: str, evidence: Evidence | None = None):
        super().__init__(said)
        self.evidence = evidence
        """None once it is kept."""
