"""Writers, readers, promotions, faults and deaths on one store, in any interleaving, against what must hold.

Each operation is a process of its own (``stage``), which stops before everything it reads from the store and does to
it. Hypothesis chooses which one goes on, and what it meets.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from faults import Fault, Killed
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stage import Actor, stage

from alignment.errors import Conflict, UserError
from alignment.types import Artifact, Dropped
from infra import artifacts, tables
from infra.artifacts import Promotion
from infra.objects import ObjectRecord
from infra.rows import Shard
from infra.runs import Turn, Turns

RECIPES, SHARDED = ("r0", "r1"), ("s0", "s1")
WORK = (("a",), ("b",), ("a", "b"))
RUNS, PATHS, CONFIGS = ("x", "y"), ("round-000/groups", "round-001/groups"), ({"seed": 0}, {"seed": 1})
MOVING = "promoted.json"

Due = Callable[[], tuple[object, bool]]
"""Asked at an operation's end: what it gives where it wins, and whether it must; a Conflict is due where not."""


class Operation(NamedTuple):
    actor: Actor
    due: Due
    collects: bool = False
    names: tuple[str, str, Artifact] | None = None
    """A run, a path of it, and what that is to point to."""


class StoreMachine(RuleBasedStateMachine):
    actors = 6
    """Operations under way at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.store = str(self.root)
        self.staged = ExitStack()
        self.staged.enter_context(stage())
        self.acting: list[Operation] = []
        self.stands: dict[str, bytes] = {}
        """Every file that readers believe, as it was when it was first there."""
        self.rows: dict[str, tuple[str, ...]] = {}
        """Of every object that is there, by ``kind/recipe``."""
        self.objects: list[Artifact] = []
        self.turns: tuple[Turn, ...] = ()
        self.promotions: list[Promotion | None] = [None]

    # who begins

    @precondition(lambda self: len(self.acting) < self.actors)
    @rule(recipe=st.sampled_from(RECIPES), items=st.sampled_from(WORK))
    def write(self, recipe: str, items: Sequence[str]) -> None:
        rows = _rows(items)

        def due() -> tuple[object, bool]:
            stands = artifacts.find(self.store, "policy", recipe)
            return stands, stands is not None and stands.digest == _digest(rows)

        self.begin(lambda: artifacts.commit_rows(self.store, "policy", recipe, rows, Dropped), due)

    @precondition(lambda self: len(self.acting) < self.actors)
    @rule(recipe=st.sampled_from(SHARDED), index=st.sampled_from((0, 1)), items=st.sampled_from(WORK[:2]))
    def write_shard(self, recipe: str, index: int, items: Sequence[str]) -> None:
        rows = _rows(items)

        def due() -> tuple[object, bool]:
            stands = artifacts.find_shard(self.store, "groups", recipe, index)
            return stands, stands is not None and stands.digest == _digest(rows)

        self.begin(lambda: artifacts.commit_shard(self.store, "groups", recipe, index, rows, Dropped), due)

    @precondition(lambda self: len(self.acting) < self.actors)
    @rule(recipe=st.sampled_from(SHARDED))
    def write_whole(self, recipe: str) -> None:
        """Where both shards are there."""
        shards = [artifacts.find_shard(self.store, "groups", recipe, index) for index in (0, 1)]
        there = [shard for shard in shards if shard is not None]
        if len(there) == 2:
            self.begin(
                lambda: artifacts.commit_shards(self.store, "groups", recipe, there),
                lambda: (artifacts.find(self.store, "groups", recipe), True),
            )

    @precondition(lambda self: self.objects and len(self.acting) < self.actors)
    @rule(number=st.integers(0, 9))
    def read(self, number: int) -> None:
        artifact = self.objects[number % len(self.objects)]
        items = self.rows[f"{artifact.kind}/{artifact.recipe}"]
        self.begin(lambda: tuple(row.item for row in artifacts.read_rows(artifact, Dropped)), lambda: (items, True))

    @precondition(lambda self: self.objects and len(self.acting) < self.actors)
    @rule(run=st.sampled_from(RUNS), path=st.sampled_from(PATHS), number=st.integers(0, 9))
    def name(self, run: str, path: str, number: int) -> None:
        artifact = self.objects[number % len(self.objects)]
        self.begin(
            lambda: artifacts.name(self.store, run, path, artifact),
            lambda: (None, artifacts.named(self.store, run, path) == artifact),
            names=(run, path, artifact),
        )

    @precondition(lambda self: len(self.acting) < self.actors)
    @rule(run=st.sampled_from(RUNS), config=st.sampled_from(CONFIGS))
    def claim(self, run: str, config: dict[str, int]) -> None:
        self.begin(
            lambda: artifacts.claim_run(self.store, run, config),
            lambda: (None, artifacts.read_config(self.store, run) == config),
        )

    @precondition(lambda self: self.promotable() and len(self.acting) < self.actors)
    @rule(number=st.integers(0, 9), known=st.integers(0, 9), later=st.integers(1, 2))
    def promote(self, number: int, known: int, later: int) -> None:
        """After any promotion that some driver once knew of, however long ago."""
        artifact = self.promotable()[number % len(self.promotable())]
        expected = self.promotions[known % len(self.promotions)]
        round = expected.round + later if expected else 0
        wanted = Promotion.after(expected, artifact, round)
        turns = wanted.turns().turns

        def due() -> tuple[object, bool]:
            wins = self.history()[: len(turns)] == turns
            if wins and wanted not in self.promotions:
                self.promotions.append(wanted)
            return wanted, wins

        self.begin(lambda: artifacts.promote(self.store, "x", artifact, round, expected), due)

    def promotable(self) -> list[Artifact]:
        return self.objects

    # who goes on, and what it meets

    @precondition(lambda self: self.acting)
    @rule(which=st.integers(0, 5), touches=st.integers(1, 6))
    def go_on(self, which: int, touches: int) -> None:
        for _ in range(touches):
            self.go(which, None)

    @precondition(lambda self: self.acting)
    @rule(which=st.integers(0, 5), fault=st.sampled_from(("kill", "fail", "lose", "deny")))
    def meet(self, which: int, fault: Fault) -> None:
        self.go(which, fault)

    def begin(
        self,
        call: Callable[[], object],
        due: Due,
        *,
        collects: bool = False,
        names: tuple[str, str, Artifact] | None = None,
    ) -> None:
        operation = Operation(Actor(call), due, collects, names)
        if operation.actor.over:  # it needed nothing of the store
            self.judge(operation)
        else:
            self.acting.append(operation)

    def go(self, which: int, fault: Fault | None) -> None:
        if not self.acting:
            return
        operation = self.acting[which % len(self.acting)]
        operation.actor.go(fault)
        if operation.actor.over:
            self.acting.remove(operation)
            self.judge(operation)

    def judge(self, operation: Operation) -> None:
        """It ends as is due; dead where it was killed, and with a line that says why where it met another fault."""
        actor = operation.actor
        if isinstance(actor.end, Killed):
            return
        if actor.hurt and isinstance(actor.end, UserError) and not isinstance(actor.end, Conflict):
            assert "\n" not in str(actor.end)
            return
        value, wins = operation.due()
        if wins:
            assert actor.end is None, repr(actor.end)
            assert actor.value == value
        else:
            assert isinstance(actor.end, Conflict), (actor.end, actor.value)

    # what must hold, always

    @invariant()
    def nothing_that_stands_changes(self) -> None:
        """Nor does it go away, and what is new is whole."""
        there = {str(path.relative_to(self.root)): path.read_bytes() for path in self.believed()}
        for path, data in self.stands.items():
            assert there.get(path) == data, path
        for path in sorted(there.keys() - self.stands.keys()):
            self.is_whole(path, there[path])
        self.stands = there

    @invariant()
    def the_history_only_grows(self) -> None:
        turns = self.history()
        assert turns[: len(self.turns)] == self.turns
        assert [turn.round for turn in turns] == sorted({turn.round for turn in turns})
        self.turns = turns

    def believed(self) -> list[Path]:
        files = [path for path in self.root.rglob("*.json") if not path.name.startswith(".")]
        return [path for path in files if path.name != MOVING and "probes" not in path.parts]

    def is_whole(self, path: str, data: bytes) -> None:
        """What a reader would make of it, down to the last row."""
        match Path(path).parts:
            case ("objects", kind, recipe, "record.json"):
                record = ObjectRecord.model_validate_json(data)
                artifact = artifacts.find(self.store, record.kind, recipe)
                assert artifact is not None
                found = list(artifacts.read_rows(artifact, Dropped))
                assert tables.digest_rows(tables.row_digests(found)) == artifact.digest
                assert record.rows == len(found)
                self.rows[f"{kind}/{recipe}"] = tuple(row.item for row in found)
                self.objects.append(artifact)
            case ("objects", _, recipe, _):
                shard = Shard.model_validate_json(data)
                found = artifacts.read_shard(self.store, "groups", recipe, shard, Dropped)
                assert tables.row_digests(found) == shard.row_digests
                assert tuple(row.item for row in found) in WORK
            case ("runs", run, "config.json"):
                assert artifacts.read_config(self.store, run) in CONFIGS
            case ("runs", run, folder, file):
                assert artifacts.named(self.store, run, f"{folder}/{file.removesuffix('.json')}") in self.objects

    def history(self) -> tuple[Turn, ...]:
        path = self.root / "runs" / "x" / MOVING
        return Turns.model_validate(json.loads(path.read_text())).turns if path.exists() else ()

    def teardown(self) -> None:
        """Whoever is left comes to its end."""
        try:
            while self.acting:
                self.go(0, None)
                self.nothing_that_stands_changes()
                self.the_history_only_grows()
        finally:
            self.staged.close()
            shutil.rmtree(self.root)


def _rows(items: Sequence[str]) -> list[Dropped]:
    return [Dropped(step="select", item=item, reason="tie") for item in items]


def _digest(rows: Sequence[Dropped]) -> str:
    return tables.digest_rows(tables.row_digests(rows))
