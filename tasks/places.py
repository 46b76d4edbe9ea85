"""Where a run's files lie. Imports no orchestrator, so that looking at a run is quick."""

from alignment.config import RunConfig
from alignment.types import Record
from infra import run_files


class Place(Record):
    """A folder of a run: ``{store}/runs/{run}/{folder}``."""

    store: str
    run: str
    folder: str

    @classmethod
    def of(cls, config: RunConfig, folder: str) -> "Place":
        return cls(store=config.store, run=config.run, folder=folder)


def note_path(at: Place, step: str) -> str:
    return run_files.note_path(at.run, at.folder, step)


def probes_path(at: Place) -> str:
    """Folder of what failed probes had compared."""
    return f"runs/{at.run}/{at.folder}/probes"
