"""A recipe as a Prefect deployment: the dashboard's form is the typed config, a schedule fires it."""

from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import serve as serve_deployments
from prefect.types.entrypoint import EntrypointType

from alignment.config import RunConfig
from alignment.errors import UserError
from flows.orchestrator import problem_with_server, server_address

ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
"""Runs of one deployment wait for each other: two at once would do the same work twice."""

LONGEST_SCHEDULED = 63 - len("-20261231-0300")
"""Characters of the name of a run that a schedule fires, which bears its time."""


def deploy(
    config: RunConfig,
    *,
    cron: str | None = None,
    serve: bool = False,
    name: str | None = None,
    work_pool: str | None = None,
) -> None:
    """Make, or bring up to date, the deployment ``align/{name}`` on the server that PREFECT_API_URL names.

    ``config`` gives the form's first values, ``name`` defaults to the run's. ``serve`` stays in the foreground and
    runs what is triggered here; otherwise a worker of ``work_pool`` does. What the schedule
    fires is named after its time, as in ``nightly-20261231-0300``. UserError for a schedule that cannot be
    read, a server that does not answer, or a pool that it does not have.
    """
    from flows.align import align  # the whole method: not needed to tell that a schedule is wrong

    deploy_flow(align, config, cron=cron, serve=serve, name=name, work_pool=work_pool)


def deploy_flow(
    flow: Flow[[RunConfig], Any],
    config: RunConfig,
    *,
    cron: str | None,
    serve: bool,
    name: str | None,
    work_pool: str | None,
) -> None:
    """``deploy`` for any flow of one parameter ``config``."""
    if serve and work_pool:
        raise UserError(f"--serve runs here and --work-pool {work_pool} on that pool's workers: give one of them")
    schedules = [_schedule(cron)] if cron is not None else []
    if schedules and len(config.run) > LONGEST_SCHEDULED:
        raise UserError(
            f"run {config.run!r} has {len(config.run)} characters, and a schedule adds date and time to it: give it a "
            f"name of at most {LONGEST_SCHEDULED}"
        )
    server = _server()
    deployment = RunnerDeployment.from_flow(
        flow,
        name or config.run,
        schedules=schedules,
        parameters={"config": config.model_dump(mode="json")},
        description=f"{flow.description or flow.name}\n\nFirst values: run {config.run!r}.",
        concurrency_limit=ONE_AT_A_TIME,
        entrypoint_type=EntrypointType.MODULE_PATH,  # found wherever this package is installed
    )
    _apply(deployment, work_pool)
    title = f"{flow.name}/{deployment.name}"
    print(f"{title} on {server}" + (f", schedule {cron}" if cron else ", no schedule"))
    if serve:
        serve_deployments(deployment)
    else:
        print(_who_runs_it(title, work_pool))


def _schedule(cron: str) -> CronSchedule:
    # the parser also takes a sixth field, of seconds, which the scheduler was not made for
    if len(cron.split()) != 5 and not cron.startswith("@"):
        raise UserError(f"--cron {cron!r}: {len(cron.split())} fields, not 5; such as '0 3 * * *' for every night at 3")
    try:
        return CronSchedule(cron=cron)
    except ValueError:
        raise UserError(f"--cron {cron!r}: not a schedule; such as '0 3 * * *' for every night at 3") from None


def _server() -> str:
    """The API server as a person names it, without credentials; UserError when it does not answer."""
    server = server_address()
    if server is None:
        raise UserError(
            "no Prefect server to deploy to: start one with 'prefect server start' and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    if problem := problem_with_server():
        raise UserError(f"{server}: no Prefect server answers there ({problem}); start it")
    return server


def _apply(deployment: RunnerDeployment, work_pool: str | None) -> None:
    if work_pool is not None:
        with get_client(sync_client=True) as client:
            try:
                client.read_work_pool(work_pool)
            except ObjectNotFound:
                raise UserError(
                    f"--work-pool {work_pool}: the server has no such pool; prefect work-pool create {work_pool} "
                    "--type process"
                ) from None
    try:
        deployment.apply(work_pool_name=work_pool)
    except DeploymentApplyError as error:
        raise UserError(f"deployment {deployment.name!r}: the server refused it: {error}") from None


def _who_runs_it(title: str, work_pool: str | None) -> str:
    if work_pool is None:
        return "nothing runs it yet: stay here with --serve, or name a pool with --work-pool"
    return f"run by 'prefect worker start --pool {work_pool}'; by hand: prefect deployment run {title}"
