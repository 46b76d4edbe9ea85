"""The commands that look at a store, or clear it up: none of them starts an engine."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from alignment.errors import UserError


class AddCommand(Protocol):
    """Adds a command to the parser: its name, what it does, and what its help says."""

    def __call__(self, name: str, call: Callable[..., int], about: str) -> argparse.ArgumentParser: ...


def add_commands(command: AddCommand, store: str) -> None:
    """Add all commands of this file; ``store`` is where runs are kept unless one says otherwise."""
    show = command("show", _show, "Rounds, metrics and verdicts of a run, or all runs.")
    of_run(show, store, optional=True)
    show.add_argument("--json", action="store_true")
    report = of_run(command("report", _report, "Write a run's report: one self-contained HTML file."), store)
    report.add_argument("--out", help="where to write it (default RUN.html in this folder)")
    export = of_run(command("export", _export, "Copy the promoted policy out, as a transformers directory."), store)
    export.add_argument("folder", metavar="DIR")
    _add_verify(command, store)
    _add_lineage(command, store)
    _add_gc(command)


def of_run(sub: argparse.ArgumentParser, store: str, *, optional: bool = False) -> argparse.ArgumentParser:
    sub.add_argument("run_name", metavar="RUN", nargs="?" if optional else None, help="name of a run")
    return _in_store(sub, store)


def _in_store(sub: argparse.ArgumentParser, store: str) -> argparse.ArgumentParser:
    sub.add_argument("--store", default=store, help=f"where runs are kept (default {store}, or RATCHET_STORE)")
    return sub


def _show(arguments: argparse.Namespace, _: list[str]) -> int:
    from rich.console import Console

    from tasks.history import failed_probes, read_run, read_runs
    from tasks.show import runs_text, show_text

    if arguments.run_name is None:
        runs = read_runs(arguments.store, steps=arguments.json)
        shown = [run.model_dump(mode="json") for run in runs]
        text = runs_text(runs, arguments.store)
    else:
        run = read_run(arguments.store, arguments.run_name)
        shown = run.model_dump(mode="json")
        text = show_text(run, failed_probes(arguments.store, arguments.run_name))
    if arguments.json:
        print(json.dumps(shown, indent=1))
    else:
        Console().print(text)
    return 0


def _report(arguments: argparse.Namespace, _: list[str]) -> int:
    from tasks.report import write_report

    print(write_report(arguments.store, arguments.run_name, Path(arguments.out) if arguments.out else None))
    return 0


def _export(arguments: argparse.Namespace, _: list[str]) -> int:
    from tasks.export import export_policy

    print(export_policy(arguments.store, arguments.run_name, Path(arguments.folder)))
    return 0


def _add_verify(command: AddCommand, store: str) -> None:
    verify = command(
        "verify", _verify, "Hold everything in a store to what its records say; status 1 when something is wrong."
    )
    verify.add_argument("place", metavar="STORE", nargs="?", help=f"the store (default {store}, or RATCHET_STORE)")
    verify.add_argument("run_name", metavar="RUN", nargs="?", help="this run and all that it came from, alone")
    verify.add_argument("--store", help="the store, as other commands take it; then a RUN alone may follow")
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(default_store=store)


def _verify(arguments: argparse.Namespace, _: list[str]) -> int:
    store, run = _store_and_run(arguments)
    from tasks.verify import verified_lines, verify_store

    found = verify_store(store, run)
    if arguments.json:
        print(found.model_dump_json(indent=1))
    else:
        print(*verified_lines(found), sep="\n")
    return 1 if found.problems else 0


def _store_and_run(arguments: argparse.Namespace) -> tuple[str, str | None]:
    if arguments.store is None:
        return arguments.place or arguments.default_store, arguments.run_name
    if arguments.run_name is not None:
        raise UserError(f"verify: two stores are given, {arguments.place} and {arguments.store}; leave one of them out")
    return arguments.store, arguments.place


def _add_lineage(command: AddCommand, store: str) -> None:
    lineage = _in_store(command("lineage", _lineage, "What an artifact was made from, back to the first model."), store)
    lineage.add_argument(
        "artifact", metavar="ARTIFACT", help="STORE/objects/KIND/RECIPE, KIND/RECIPE (its beginning will do), or a step"
    )
    lineage.add_argument("--run", dest="run_name", metavar="RUN", help="whose step it is, such as round-001/train")
    lineage.add_argument("--json", action="store_true")
    lineage.add_argument("--out", metavar="FILE", help="draw it as well: a .svg or .html file")


def _lineage(arguments: argparse.Namespace, _: list[str]) -> int:
    from rich.console import Console

    from tasks.lineage import lineage_text, read_lineage, write_picture

    lineage = read_lineage(arguments.artifact, arguments.store, arguments.run_name)
    if arguments.json:
        print(lineage.model_dump_json(indent=1))
    else:
        Console().print(lineage_text(lineage))
    if arguments.out:
        write_picture(lineage, Path(arguments.out))
    return 1 if lineage.broken else 0


def _add_gc(command: AddCommand) -> None:
    gc = command("gc", _gc, "Remove what no run refers to, and what killed writers left, once it is old.")
    gc.epilog = (
        "Kept are all objects that a run names, promoted, measured or was configured with, and all that these were "
        "made from. A run may go on in the store meanwhile: what it is making is young. An age below one hour is "
        "refused, but for 0 in a store without any run, where nobody can be at work."
    )
    gc.add_argument("store", metavar="STORE")
    gc.add_argument("--older-than", metavar="AGE", default="7d", help="7d, 12h, 90m or 2w (default 7d)")
    gc.add_argument("--dry-run", action="store_true", help="tell what would go, and remove nothing")
    gc.add_argument("--json", action="store_true")


def _gc(arguments: argparse.Namespace, _: list[str]) -> int:
    from tasks.sweep import parse_age, sweep_store, swept_lines

    swept = sweep_store(arguments.store, parse_age(arguments.older_than), dry_run=arguments.dry_run)
    if arguments.json:
        print(swept.model_dump_json(indent=1))
    else:
        print(*swept_lines(swept), sep="\n")
    return 0
