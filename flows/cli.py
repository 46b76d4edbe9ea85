"""The command line. Heavy modules are imported by the command that needs them, so that --help is instant."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from alignment.errors import UserError
from flows import cli_store

if TYPE_CHECKING:
    from alignment.config import RunConfig
    from alignment.testbed.outcomes import Outcomes

RECIPES = Path(__file__).parent / "recipes"
CLAIMS_EPILOG = (
    "Claims are measured on a testbed of arrays, in minutes, and, without --quick, in the sandbox on the whole stack: "
    "44 ordinary runs named claims-..., which ratchet show and ratchet report know too; expect an hour or more on two "
    "cores. Only the runs are made that the claims asked for need. Interrupted, the same command goes on: what is "
    "finished is found in the store."
)


def main(words: Sequence[str] | None = None) -> NoReturn:
    arguments, overrides = _parser().parse_known_args(words)
    try:
        if overrides and not arguments.takes_overrides:
            raise UserError(
                f"{arguments.command}: unknown argument {overrides[0]}; see ratchet {arguments.command} --help"
            )
        status = arguments.call(arguments, overrides)
    except UserError as error:
        print(f"ratchet: {_one_line(str(error))}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("ratchet: interrupted; the same command goes on from here", file=sys.stderr)
        status = 130
    except Exception as error:
        from infra.redaction import redact

        redact(error)
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.exit(status)


def _one_line(text: str) -> str:
    """Without secrets, and with nothing in it that a terminal would act on."""
    from infra.redaction import redacted

    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in redacted(" ".join(text.split())))


def _run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tasks.recipe import load_config

    return _start(load_config(arguments.recipe, _flags(arguments, overrides), shipped=RECIPES))


def _fork(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tasks.recipe import fork_config

    words = _flags(arguments, overrides)
    return _start(fork_config(arguments.store, arguments.run_name, arguments.new, words))


def _start(config: "RunConfig") -> int:
    from tasks.console import quiet_engines

    quiet_engines()
    from flows.align import align
    from flows.orchestrator import answering
    from flows.plan import finished

    if (summary := finished(config)) is None:
        with answering():
            summary = align(config)
    from rich.console import Console

    from tasks.report import write_report
    from tasks.show import show_text

    Console().print(show_text(summary))
    print(f"report {write_report(config.store, config.run, None)}")
    return 0


def _plan(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tasks.recipe import load_config

    config = load_config(arguments.recipe, _flags(arguments, overrides), shipped=RECIPES)
    from tasks.console import quiet_engines

    quiet_engines()
    from flows.plan import plan

    planned = plan(config)
    if arguments.json:
        print(planned.model_dump_json(indent=1))
    else:
        from rich.console import Console

        from tasks.forecast import plan_text

        Console().print(plan_text(planned))
    return 0


def _deploy(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tasks.recipe import load_config

    config = load_config(arguments.recipe, _flags(arguments, overrides), shipped=RECIPES)
    from flows.deploy import deploy

    deploy(config, cron=arguments.cron, serve=arguments.serve, name=arguments.name, work_pool=arguments.work_pool)
    return 0


def _submit(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from tasks.recipe import find_recipe, load_config
    from tasks.submit import submit_run

    words = _flags(arguments, overrides)
    config = load_config(arguments.recipe, words, shipped=RECIPES)
    return submit_run(config, find_recipe(arguments.recipe, RECIPES), words, address=arguments.address)


def _claims(arguments: argparse.Namespace, _: list[str]) -> int:
    from rich.console import Console

    from tasks.claims import asked_for, measured, sandbox_findings, write_json
    from tasks.claims_show import claims_page, claims_text, in_order, tally
    from tasks.console import out, quiet_engines
    from tasks.text_files import write_text

    asked = asked_for(arguments.only, quick=arguments.quick)
    outcomes: Outcomes = {}
    if asked.readings:
        quiet_engines()
        from flows.claims import base_config, run_cells

        outcomes = run_cells(asked.readings, base_config(arguments.store))
    findings = in_order([*measured(asked.experiments), *sandbox_findings(asked.readings, outcomes)])
    Console().print(claims_text(findings))
    print(tally(findings))
    if arguments.json:
        write_json(findings, Path(arguments.json))
    write_text(Path(arguments.out), claims_page(findings, outcomes))
    out.print(f"report {arguments.out}", soft_wrap=True)
    return 0


def _flags(arguments: argparse.Namespace, overrides: list[str]) -> list[str]:
    skip = ["--skip-bad-rows", "true"] if getattr(arguments, "skip_bad_rows", False) else []
    return [*overrides, *skip]


class _Parser(argparse.ArgumentParser):
    """Adds the fields of a recipe to the help of the commands that take one; they are read only then."""

    def format_help(self) -> str:
        text = super().format_help()
        if not self.get_default("takes_overrides"):
            return text
        from tasks.recipe import fields_help

        return f"{text}\nfields:\n{fields_help()}\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ratchet",
        description="Align a language model to preferences in rounds, and promote only what is better.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    store = os.environ.get("RATCHET_STORE", "./runs")

    def command(name: str, call: object, about: str, *, recipe: bool = False) -> argparse.ArgumentParser:
        more = "Any field of the recipe can be set: --train.loss.beta 0.05, --rounds 5, --store s3://bucket/prefix."
        sub = commands.add_parser(
            name, help=about, description=about, epilog=more if recipe else None, allow_abbrev=False
        )
        sub.set_defaults(call=call, takes_overrides=recipe)
        if recipe:
            sub.add_argument("recipe", help="a recipe's name or a path to a .toml file")
            sub.add_argument(
                "--skip-bad-rows", action="store_true", help="report bad input rows and go on without them"
            )
        return sub

    command("run", _run, "Run a recipe, or go on with a run that was interrupted.", recipe=True)
    plan = command(
        "plan", _plan, "Check a recipe and tell what is cached and what would run; starts nothing.", recipe=True
    )
    plan.add_argument("--json", action="store_true")
    cli_store.add_commands(command, store)
    claims = command("claims", _claims, "Measure whether the methods do what their papers claim, with intervals.")
    claims.epilog = CLAIMS_EPILOG
    claims.add_argument("--quick", action="store_true", help="on the testbed of arrays alone, in minutes, no engine")
    claims.add_argument(
        "--only", metavar="NAME", help="claims whose name contains this, such as rso, 'sera S4' or 'prs sandbox'"
    )
    claims.add_argument("--store", default=store, help=f"of the sandbox's runs (default {store}, or RATCHET_STORE)")
    claims.add_argument("--json", metavar="FILE", help="write the results there as well")
    claims.add_argument("--out", metavar="FILE", default="claims.html", help="the report (default claims.html)")
    fork = command("fork", _fork, "Start a new run from another's configuration; equal work is shared.")
    cli_store.of_run(fork, store)
    fork.add_argument("new", metavar="NEW", help="name of the new run; overrides follow as for run")
    fork.set_defaults(takes_overrides=True)
    deploy = command("deploy", _deploy, "Make a Prefect deployment: a typed form and a schedule.", recipe=True)
    deploy.add_argument("--cron", help="schedule, such as '0 3 * * *'")
    deploy.add_argument("--serve", action="store_true", help="stay here and run what is triggered")
    deploy.add_argument("--name", help="name of the deployment (default: the run's)")
    deploy.add_argument("--work-pool", help="pool whose workers run what is triggered")
    submit = command("submit", _submit, "Run a recipe as a Ray job and return its exit status.", recipe=True)
    submit.add_argument("--address", required=True, help="the cluster's job server, such as http://127.0.0.1:8265")
    return parser


if __name__ == "__main__":
    main()
