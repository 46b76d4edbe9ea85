"""Reward models of a run, adopted: what scores, under which name, from which artifacts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from alignment.rewards import RewardModel
from alignment.types import Artifact, Record
from infra.objects import sha256_of
from infra.reward_models import RewardSource


class Judge(Record):
    """One reward model, ready to be opened."""

    name: str
    """``reward`` or ``gold``: the key of its scores in a group."""
    spec: RewardModel
    models: Mapping[str, Artifact] = {}
    """The models it needs, by the field of ``spec`` that names them."""
    source: str | None = None
    """Digest of the module a verifier lives in."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a score depends on: the choice, with every model named by its digest."""
        chosen = self.spec.model_dump(mode="json", exclude=set(self.models))
        if "arguments" in chosen:  # a file counts by its content, wherever it lies
            chosen["arguments"] = {name: _content(value) for name, value in chosen["arguments"].items()}
        return {
            "name": self.name,
            "spec": chosen,
            "models": {field: artifact.digest for field, artifact in self.models.items()},
            "source": self.source,
        }


def _content(value: JsonValue) -> JsonValue:
    if isinstance(value, str) and Path(value).is_file():
        return {"sha256": sha256_of(Path(value))}
    return value


def sources_of(judges: Sequence[Judge]) -> dict[str, RewardSource]:
    return {judge.name: RewardSource(judge.spec, judge.models) for judge in judges}
