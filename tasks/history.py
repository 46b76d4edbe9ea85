"""What a run has left in its store, read back: manifests, steps and costs, for people and for later rounds."""

from pydantic import JsonValue

from alignment.config import RunConfig
from alignment.probes import Evidence
from alignment.summary import InitialSummary, PolicyName, RoundSummary, RunSummary
from alignment.types import Artifact, Record, RoundManifest, Step, StepNote
from infra import artifacts, storage
from infra.objects import parsed
from tasks.steps import Place, note_path, probes_path


class NamedStep(Record):
    """A step of a round: what it made, and what that cost."""

    artifact: Artifact
    note: StepNote


class FailedProbe(Record):
    """A probe that failed in a run, with what it had compared."""

    folder: str
    step: str
    path: str
    """In the store."""
    evidence: Evidence
    mended: bool
    """Whether the step was made after all."""


def write_manifest(at: Place, manifest: RoundManifest) -> None:
    artifacts.put_once(at.store, f"{_folder(at)}/manifest.json", manifest.model_dump_json(indent=1).encode())


def read_manifest(at: Place) -> RoundManifest | None:
    """None until the round is decided."""
    path = f"{_folder(at)}/manifest.json"
    data = storage.read(at.store, path)
    return None if data is None else parsed(RoundManifest, at.store, path, data)


def read_manifests(store: str, run: str, *, before: int | None = None) -> list[RoundManifest]:
    """The initial policy's and the decided rounds' manifests, in order, up to but without round ``before``."""
    found: list[RoundManifest] = []
    for folder in folders(store, run):
        manifest = read_manifest(Place(store=store, run=run, folder=folder))
        if manifest is not None and (before is None or manifest.round < before):
            found.append(manifest)
    return found


def is_decided(config: RunConfig) -> bool:
    """Whether every round of the run has its verdict, and its last promotion was carried out."""
    if config.run not in artifacts.list_runs(config.store):
        return False
    rounds = [m for m in read_manifests(config.store, config.run) if m.round >= 0]
    promoted = [m.round for m in rounds if m.verdict == "promoted"]
    pointer = artifacts.promoted(config.store, config.run)
    return len(rounds) == config.rounds and (pointer.round if pointer else None) == (promoted[-1] if promoted else None)


def read_steps(at: Place) -> dict[str, NamedStep]:
    """The steps of a round that are there, in the order they were made."""
    steps: dict[str, NamedStep] = {}
    for step in (name.removesuffix(".json") for name in storage.folders(at.store, f"{_folder(at)}/notes")):
        note = parsed(StepNote, at.store, path := note_path(at, step), storage.read_bytes(at.store, path))
        if artifact := artifacts.named(at.store, at.run, f"{at.folder}/{step}"):
            steps[step] = NamedStep(artifact=artifact, note=note)
    return dict(sorted(steps.items(), key=lambda item: item[1].note.finished))


def round_costs(at: Place) -> dict[str, float | None]:
    """Tokens sampled in a round, and seconds its engines took, whoever spent them."""
    made = [step.artifact for step in read_steps(at).values()]
    tokens = [a.facts.get("tokens") for a in made if a.kind == "completions"]
    seconds = [a.facts.get("engine_seconds") for a in made]
    return {
        "tokens": float(sum(t for t in tokens if isinstance(t, int))),
        "engine_seconds": round(sum(s for s in seconds if isinstance(s, float | int)), 3),
    }


def round_probes(at: Place) -> dict[str, JsonValue]:
    """What the engines' probes found in a round, by step."""
    probes = {name: step.artifact.facts.get("probes") for name, step in read_steps(at).items()}
    return {name: found for name, found in probes.items() if found}


def failed_probes(store: str, run: str) -> list[FailedProbe]:
    """In the order of the run's folders; empty where none failed."""
    places = [Place(store=store, run=run, folder=folder) for folder in folders(store, run)]
    return [_failed(at, name) for at in places for name in storage.folders(store, probes_path(at))]


def _failed(at: Place, name: str) -> FailedProbe:
    path, step = f"{probes_path(at)}/{name}", name.rpartition("-")[0]
    return FailedProbe(
        folder=at.folder,
        step=step,
        path=path,
        evidence=parsed(Evidence, at.store, path, storage.read_bytes(at.store, path)),
        mended=storage.size(at.store, note_path(at, step)) is not None,
    )


def read_run(store: str, run: str) -> RunSummary:
    """A run as far as it has come. UserError when there is no such run."""
    config = artifacts.read_config(store, run)
    manifests = {m.round: m for m in read_manifests(store, run)}
    initial = manifests.pop(-1, None)
    return RunSummary(
        run=run,
        store=store,
        config=config,
        initial=InitialSummary(policy=_policy(initial), metrics=initial.metrics) if initial else InitialSummary(),
        rounds=tuple(_round(Place(store=store, run=run, folder=f"round-{k:03d}"), m) for k, m in manifests.items()),
    )


def read_runs(store: str) -> list[RunSummary]:
    return [read_run(store, run) for run in artifacts.list_runs(store)]


def folders(store: str, run: str) -> list[str]:
    """``start`` and the rounds that have begun, in order."""
    config = artifacts.read_config(store, run)
    return ["start", *(f"round-{k:03d}" for k in range(int(str(config["rounds"]))))]


def _round(at: Place, manifest: RoundManifest) -> RoundSummary:
    return RoundSummary(
        round=manifest.round,
        verdict=manifest.verdict,
        reasons=manifest.reasons,
        policy=_policy(manifest),
        steps={
            name: Step(
                uri=step.artifact.uri,
                recipe=step.artifact.recipe,
                seconds=step.note.seconds,
                reused=step.note.reused,
            )
            for name, step in read_steps(at).items()
        },
        metrics=manifest.metrics,
    )


def _policy(manifest: RoundManifest) -> PolicyName:
    return PolicyName(uri=manifest.policy.uri, digest=manifest.policy.digest)


def _folder(at: Place) -> str:
    return f"runs/{at.run}/{at.folder}"
