"""Reward models of a run, adopted: what scores, under which name, from which artifacts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from alignment.ensembles import standard_of
from alignment.rewards import Ensemble, RewardModel
from alignment.types import Artifact, Group, Record
from infra.reward_job import Labelled
from infra.reward_models import RewardSource
from infra.stored_files import sha256_of


class Judge(Record):
    """One reward model, ready to be opened."""

    name: str
    """``reward`` or ``gold``: the key of its scores in a group."""
    spec: RewardModel
    models: Mapping[str, Artifact] = {}
    """The models it needs, by the field of ``spec`` that names them."""
    source: str | None = None
    """Digest of the module a verifier lives in."""
    members: Mapping[str, "Judge"] = {}
    """Of an ensemble, by the name its choice gives them."""

    learned: tuple[Labelled, ...] = ()
    """What its model was trained on by this run."""

    @property
    def digests(self) -> dict[str, str]:
        """Of every model and verifier it asks, by place."""
        own = {f"{self.name}.{field}": artifact.digest for field, artifact in self.models.items()}
        own |= {self.name: self.source} if self.source else {}
        return own | {place: d for member in self.members.values() for place, d in member.digests.items()}

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every model it needs, its members' included."""
        return (*self.models.values(), *(a for member in self.members.values() for a in member.artifacts))

    @property
    def identity(self) -> dict[str, Any]:
        """What a score depends on: the choice, with every model named by its digest."""
        if self.members:
            own = self.spec.model_dump(mode="json", exclude={"members"})
            members = {member: judge.identity for member, judge in self.members.items()}
            return {"name": self.name, "spec": own, "members": members}
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


def digests_of(judges: Sequence[Judge]) -> dict[str, str]:
    """Of every model and verifier that the judges ask, by its place such as ``reward.model``."""
    return {place: digest for judge in judges for place, digest in judge.digests.items()}


def sources_of(judges: Sequence[Judge]) -> dict[str, RewardSource]:
    return {judge.name: _source(judge) for judge in judges}


def _source(judge: Judge) -> RewardSource:
    return RewardSource(judge.spec, judge.models, {name: _source(member) for name, member in judge.members.items()})


def unmeasured(judges: Sequence[Judge]) -> tuple[Judge, ...]:
    """The members of ensembles whose standards are not given, each as a judge of its own."""
    open_ones = [j for j in judges if isinstance(j.spec, Ensemble) and not j.spec.standards]
    return tuple(member for judge in open_ones for member in judge.members.values())


def measured(judge: Judge, groups: Sequence[Group]) -> Judge:
    """The judge with its members' standards, from groups that ``unmeasured`` scored. Others are as they were."""
    if not isinstance(judge.spec, Ensemble) or judge.spec.standards:
        return judge
    standards = {
        name: standard_of(name, [r for g in groups for r in g.rewards[member.name] if r is not None])
        for name, member in judge.members.items()
    }
    return judge.model_copy(update={"spec": judge.spec.model_copy(update={"standards": standards})})
