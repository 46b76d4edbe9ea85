"""Any interleaving of operations on one store, without sweeps and with them."""

import time
from pathlib import Path

from faults import Killed
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from store_machine import RECIPES, WORK, Operation, StoreMachine

from alignment.errors import UserError
from alignment.types import Artifact
from infra import artifacts
from infra.object_folders import own_paths
from infra.sweep import AT_WORK, sweep
from infra.sweep_plan import Doomed, planned

OLD = time.time() + 10**6
"""Everything is older than that."""


STOPS = ("list", "create", "remove", "end")


class SweptStore(StoreMachine):
    """Objects without a name are swept as soon as they are there, while others read, share and name them.

    No age protects anything here, so what is promised of the young is not asked: an operation may be told that an
    object is gone. What was named is there, and what is there is whole.
    """

    actors = 3

    def __init__(self) -> None:
        super().__init__()
        self.swept = False
        """A sweep has begun."""
        self.cut_off = False
        """One died, or met a fault: records that it took away may stay away."""
        self.names: dict[tuple[str, str], Artifact] = {}
        """What namers were told is done."""

    @initialize()
    def fill(self) -> None:
        for recipe in RECIPES:
            self.write(recipe, WORK[0])
        while self.acting:
            self.go(0, None)

    @precondition(lambda self: self.acting)
    @rule(which=st.integers(0, 2), what=st.sampled_from(STOPS))
    def go_to(self, which: int, what: str) -> None:
        self.take_to(self.acting[which % len(self.acting)], what)

    def take_to(self, operation: Operation, what: str) -> None:
        """It goes on until it stands before this, or is at its end, while the others stand still."""
        while not operation.actor.over and operation.actor.before != what:
            self.go(self.acting.index(operation), None)

    @precondition(lambda self: self.objects and len(self.acting) < self.actors)
    @rule(what=st.sampled_from(STOPS))
    def collect(self, what: str) -> None:
        self.swept = True
        self.begin(self.sweep, lambda: (None, True), collects=True)
        self.take_to(self.acting[-1], what)

    @precondition(lambda self: self.swept and self.names)
    @rule(number=st.integers(0, 9))
    def forget(self, number: int) -> None:
        """A person removes a name that nobody is about to give."""
        at = sorted(self.names)[number % len(self.names)]
        if all(operation.names is None or operation.names[:2] != at for operation in self.acting):
            del self.names[at]
            (self.root / "runs" / at[0] / f"{at[1]}.json").unlink()

    def sweep(self) -> None:
        plan = planned(self.store, OLD)
        sweep(plan._replace(doomed=tuple(_of_record(doomed) for doomed in plan.doomed if doomed.what == "object")))

    def believed(self) -> list[Path]:
        return [path for path in super().believed() if path.name != AT_WORK]

    def promotable(self) -> list[Artifact]:
        """A round's policy has its name before it is promoted."""
        return list(self.names.values())

    def judge(self, operation: Operation) -> None:
        actor = operation.actor
        if operation.collects:
            refused = isinstance(actor.end, UserError) and "another sweep is at work" in str(actor.end)
            assert actor.end is None or actor.hurt or refused or isinstance(actor.end, Killed), repr(actor.end)
            self.cut_off = self.cut_off or not (actor.end is None or refused)
            return
        if not self.swept:
            super().judge(operation)
        elif not isinstance(actor.end, Killed | UserError | None):
            raise actor.end
        if operation.names and actor.end is None:
            run, path, artifact = operation.names
            self.names[run, path] = artifact

    @invariant()
    def nothing_that_stands_changes(self) -> None:
        """Objects may go, whole, and names whose namer is told; what stands is whole, down to the last row."""
        there = {str(path.relative_to(self.root)): path.read_bytes() for path in self.believed()}
        for path in self.stands.keys() - there.keys():
            assert self.swept
            assert path.startswith("objects/") or "/round-" in path, path
        self.objects = []
        for path in sorted(there):
            if not path.startswith("runs/") or not self.swept:
                self.is_whole(path, there[path])
        self.stands = there

    @invariant()
    def what_has_a_name_is_there(self) -> None:
        sweeping = any(operation.collects for operation in self.acting)
        for (run, path), artifact in self.names.items():
            assert f"runs/{run}/{path}.json" in self.stands
            if not sweeping and not self.cut_off:
                assert artifacts.named(self.store, run, path) == artifact
                assert f"objects/{artifact.kind}/{artifact.recipe}/record.json" in self.stands


def _of_record(doomed: Doomed) -> Doomed:
    """Without what lies beside it: only its age protects that, which nothing has here."""
    assert doomed.folder is not None
    return doomed._replace(files=tuple(found for found in doomed.files if found.path in own_paths(doomed.folder)))


def histories(number: int) -> settings:
    return settings(
        max_examples=number,
        stateful_step_count=50,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


TestStore = StoreMachine.TestCase
TestStore.settings = histories(40)
TestSweptStore = SweptStore.TestCase
TestSweptStore.settings = histories(40)
