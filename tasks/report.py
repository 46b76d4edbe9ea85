"""The run's report: one HTML file, and the same tables in the dashboard."""

import re
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from alignment.config import RunConfig
from alignment.summary import RunSummary
from tasks.report_data import report_data
from tasks.report_page import render_report
from tasks.steps import planning, step_task
from tasks.tables import tables_markdown
from tasks.text_files import write_text


@step_task("report")
def report(config: RunConfig) -> RunSummary:
    """Publish the run's tables to the dashboard and return them; while planning, there is nothing to tell."""
    if planning.get() is not None:
        return RunSummary(run=config.run, store=config.store, config=config.model_dump(mode="json"))
    data = report_data(config.store, config.run)
    run = re.sub("[^a-z0-9-]", "-", config.run)
    for name, table in tables_markdown(data).items():
        create_markdown_artifact(key=f"{run}-{name}", markdown=table)
    return data.summary


def write_report(store: str, run: str, out: Path | None) -> Path:
    """Write the report to ``out``, by default ``RUN.html`` in this folder, whole or not at all."""
    path = out or Path(f"{run}.html")
    page = render_report(report_data(store, run))
    write_text(path, page)
    return path
