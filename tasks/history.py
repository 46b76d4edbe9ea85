"""What a run has left in its store, read back: manifests, steps and costs, for people and for later rounds."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from alignment.config import RunConfig
from alignment.probes import Evidence
from alignment.summary import InitialSummary, PolicyName, RoundSummary, RunSummary
from alignment.types import Artifact, Record, RoundManifest, Step, StepNote
from infra import artifacts, storage
from infra.objects import parsed
from infra.recipes import folder_of
from infra.run_files import Role, RunFile, manifest_path, run_files
from infra.runs import Pointer
from tasks.places import Place, note_path, probes_path


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


def write_manifest(at: Place, manifest: RoundManifest) -> RoundManifest:
    """The round's manifest, for good: this one, or the one that another driver wrote before."""
    path = manifest_path(at.run, at.folder)
    artifacts.put_once(at.store, path, manifest.model_dump_json(indent=1).encode())
    return parsed(RoundManifest, at.store, path, artifacts.read_bytes(at.store, path))


def read_manifest(at: Place) -> RoundManifest | None:
    """None until the round is decided."""
    path = manifest_path(at.run, at.folder)
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
    """The steps of a round that are there, in the order they were made: by their clocks, but nothing before what
    it was made from, since clocks go back."""
    steps: dict[str, NamedStep] = {}
    for step in (name.removesuffix(".json") for name in storage.folders(at.store, f"{_folder(at)}/notes")):
        note = parsed(StepNote, at.store, path := note_path(at, step), storage.read_bytes(at.store, path))
        if artifact := artifacts.named(at.store, at.run, f"{at.folder}/{step}"):
            steps[step] = NamedStep(artifact=artifact, note=note)
    return _in_order(sorted(steps.items(), key=lambda item: item[1].note.finished))


def _in_order(waiting: list[tuple[str, NamedStep]]) -> dict[str, NamedStep]:
    ordered: dict[str, NamedStep] = {}
    while waiting:
        coming = {_address(step) for _, step in waiting}
        ready = next(item for item in waiting if not coming.intersection(item[1].artifact.parents))
        ordered[ready[0]] = ready[1]
        waiting.remove(ready)
    return ordered


def _address(step: NamedStep) -> str:
    return f"{step.artifact.kind}/{step.artifact.recipe}"


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
    return _summary(store, run, config, run_files(store, run, {"manifest", "note", "name"}))


def read_runs(store: str, *, steps: bool = True) -> list[RunSummary]:
    """Every run of a store, on request without its steps, of which there are many more than rounds."""
    roles: tuple[Role, ...] = ("manifest", "note", "name") if steps else ("manifest",)
    files: dict[str, list[RunFile]] = {}
    for file in run_files(store, None, roles):
        files.setdefault(file.run, []).append(file)
    runs = artifacts.list_runs(store)
    return [_summary(store, run, artifacts.read_config(store, run), files.get(run, [])) for run in runs]


def _summary(store: str, run: str, config: dict[str, JsonValue], files: Sequence[RunFile]) -> RunSummary:
    manifests = {f.path: parsed(RoundManifest, store, f.at, f.data) for f in files if f.role == "manifest"}
    in_order = [(folder, manifests.get(f"{folder}/manifest.json")) for folder in _folders(config)]
    steps = _steps(store, files)
    initial = manifests.get("start/manifest.json")
    return RunSummary(
        run=run,
        store=store,
        config=config,
        initial=InitialSummary(policy=_policy(initial), metrics=initial.metrics) if initial else InitialSummary(),
        rounds=tuple(_round(m, steps.get(folder, {})) for folder, m in in_order if m is not None and m.round >= 0),
    )


def _steps(store: str, files: Sequence[RunFile]) -> dict[str, dict[str, Step]]:
    """The steps of every folder that have a name and a note, in the order they were made."""
    names = {f.path: f for f in files if f.role == "name"}
    noted = [(f.path.split("/notes/"), parsed(StepNote, store, f.at, f.data)) for f in files if f.role == "note"]
    steps: dict[str, dict[str, Step]] = {}
    for (folder, step), note in sorted(noted, key=lambda one: one[1].finished):
        if name := names.get(f"{folder}/{step}"):
            to = parsed(Pointer, store, name.at, name.data)
            uri = f"{storage.canonical(store)}/{folder_of(to.kind, to.recipe)}"
            told = Step(uri=uri, recipe=to.recipe, seconds=note.seconds, reused=note.reused)
            steps.setdefault(folder, {})[step.removesuffix(".json")] = told
    return steps


def folders(store: str, run: str) -> list[str]:
    """``start`` and the rounds that have begun, in order."""
    return _folders(artifacts.read_config(store, run))


def _folders(config: Mapping[str, JsonValue]) -> list[str]:
    return ["start", *(f"round-{k:03d}" for k in range(int(str(config["rounds"]))))]


def _round(manifest: RoundManifest, steps: Mapping[str, Step]) -> RoundSummary:
    return RoundSummary(
        round=manifest.round,
        verdict=manifest.verdict,
        reasons=manifest.reasons,
        policy=_policy(manifest),
        steps=steps,
        metrics=manifest.metrics,
    )


def _policy(manifest: RoundManifest) -> PolicyName:
    return PolicyName(uri=manifest.policy.uri, digest=manifest.policy.digest)


def _folder(at: Place) -> str:
    return f"runs/{at.run}/{at.folder}"
