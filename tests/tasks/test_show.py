import subprocess
import sys
from pathlib import Path

import pytest
from odd_runs import odd_reports
from report_runs import whole_report, whole_summary
from rich.console import Console, RenderableType

from alignment.summary import InitialSummary, RunSummary
from tasks.headline import headline, remarks
from tasks.numbers import MISSING, duration, number
from tasks.show import runs_text, show_text
from tasks.tables import Cell, Table, markdown, metrics_table, tables_markdown


def printed(shown: RenderableType, width: int = 140) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(shown)
    return console.export_text()


def test_a_run_is_shown_with_its_intervals_verdicts_and_reasons():
    text = printed(show_text(whole_summary()))
    assert "Gold reward rose from 6.54 [6.40, 6.68] to 7.60 [7.46, 7.74]." in text
    for cell in ("7.23 [7.09, 7.37]", "50.9% [46.4, 55.4]", "rejected", "4/7", "26.9"):
        assert cell in text
    assert "length ratio 1.38 is over the budget of 1.25" in text


def test_brackets_of_a_run_are_not_markup():
    run = whole_summary().model_copy(update={"run": "[red]x[/red]", "store": "s3://[bold]"})
    assert "[red]x[/red]" in printed(show_text(run))


@pytest.mark.parametrize("name", odd_reports())
def test_odd_runs_are_shown_too(name: str):
    report = odd_reports()[name]
    assert report.summary.run in printed(show_text(report.summary), width=80)
    assert all(table.startswith("### ") for table in tables_markdown(report).values())


def test_a_run_without_rounds_says_so():
    assert headline(RunSummary(run="r", store="s", config={})) == "No round has finished yet."


def test_the_headline_is_no_kinder_than_the_numbers():
    run = whole_summary()
    rejected = run.model_copy(update={"rounds": run.rounds[1:2]})
    assert headline(rejected) == "No round was promoted: the policy is still the one the run began with."
    worse = run.model_copy(update={"initial": InitialSummary(metrics=run.rounds[2].metrics), "rounds": run.rounds[:1]})
    assert headline(worse).startswith("Gold reward fell from 7.60 [7.46, 7.74] to 7.23 [7.09, 7.37].")
    same = run.model_copy(update={"initial": InitialSummary(metrics=run.rounds[0].metrics), "rounds": run.rounds[:1]})
    assert "this run alone shows no difference" in headline(same)
    assert remarks(same) == ("1 of 3 rounds finished: 1 promoted.",)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.0027, 0.0159, "The 95% intervals overlap, but prompt by prompt it rose by 0.009 [0.003, 0.016]."),
        (-0.4, -0.1, "The 95% intervals overlap, but prompt by prompt it fell by 0.25 [0.10, 0.40]."),
        (-0.1, 0.4, "The 95% intervals overlap: this run alone shows no difference."),
    ],
)
def test_a_difference_that_only_pairing_shows_is_told(low: float, high: float, said: str):
    """Prompts differ more than policies do: the same prompts' differences can be sure where two means are not."""
    run = whole_summary()
    mean = 0.0092 if low == 0.0027 else (low + high) / 2
    gain = {"gold_gain_initial": mean, "gold_gain_initial_low": low, "gold_gain_initial_high": high}
    once = run.rounds[0].model_copy(update={"metrics": {**run.rounds[0].metrics, **gain}})
    same = run.model_copy(update={"initial": InitialSummary(metrics=run.rounds[0].metrics), "rounds": (once,)})
    assert headline(same).endswith(said)


def test_runs_are_listed_and_an_empty_store_says_so():
    text = printed(runs_text([whole_summary(), RunSummary(run="new", store="s", config={"rounds": 3})], "s"))
    assert "3 of 3" in text
    assert "0 of 3" in text
    assert MISSING in text
    assert printed(runs_text([], "s3://x")).strip() == "No run in s3://x yet."


def test_unknown_metrics_are_shown_under_their_own_name_and_interval():
    run = RunSummary(
        run="r",
        store="s",
        config={},
        initial=InitialSummary(metrics={"style_mean": 0.5, "style_low": 0.25, "style_high": 0.75}),
    )
    (row,) = metrics_table(run).rows
    assert [str(cell) for cell in row] == ["style_mean", "0.500 [0.250, 0.750]"]


def test_a_cell_cannot_break_out_of_a_markdown_table():
    table = Table("T", ("a", "b"), ((Cell("x|y\nz"), Cell("<b>`*")),))
    assert markdown(table) == "### T\n\n| a | b |\n|---|---|\n| x\\|y z | &lt;b&gt;\\`\\* |\n"


def test_markdown_tables_have_artifact_keys_and_the_page_s_numbers():
    tables = tables_markdown(whole_report())
    assert set(tables) == {"rounds", "metrics", "verdicts", "costs", "dropped", "probes"}
    assert all(key.isalpha() and key.islower() for key in tables)
    assert "7.60 \\[7.46, 7.74\\]" in tables["rounds"]
    assert "all rewards equal" in tables["dropped"]


@pytest.mark.parametrize(
    ("value", "digits", "style", "text"),
    [
        (None, 2, "plain", MISSING),
        (0.0, 2, "plain", "0.00"),
        (-0.001, 2, "plain", "0.00"),
        (-1.5, 1, "plain", "\u22121.5"),
        (1234567.0, 0, "count", "1\u202f234\u202f567"),
        (0.713, 1, "share", "71.3%"),
        (float("nan"), 2, "plain", "NaN"),
        (float("-inf"), 2, "plain", "\u2212∞"),
    ],
)
def test_numbers_read_as_people_write_them(value: float | None, digits: int, style: str, text: str):
    assert number(value, digits, style) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, MISSING),
        (0.0, "0.0 s"),
        (9.96, "10.0 s"),
        (59.6, "1 min 00 s"),
        (200.0, "3 min 20 s"),
        (3725.0, "1 h 02 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float | None, text: str):
    assert duration(seconds) == text


def test_showing_a_run_imports_neither_torch_nor_matplotlib_nor_prefect():
    code = (
        "import sys, tasks.show, alignment.report; print({'torch', 'matplotlib', 'prefect', 'ray'} & set(sys.modules))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"


def test_the_table_of_rounds_fits_a_terminal_of_80_columns():
    lines = printed(show_text(whole_summary()), width=80).splitlines()
    assert any(line.startswith("2") and line.rstrip().endswith("0/7") and "[7.46, 7.74]" in line for line in lines)
