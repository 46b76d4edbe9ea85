import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from odd_runs import odd_reports
from page_reading import Page
from pydantic import BaseModel
from report_runs import CONFIG, whole_report, whole_summary

from alignment.report import ReportData, RoundAnswer, StepCost
from alignment.summary import interval_of
from tasks.numbers import MEASURES, MISSING, bounds, duration, number
from tasks.report_page import StepTotal, render_report, step_totals
from tasks.svg import VARIABLES
from tasks.tables import tables_markdown
from tasks.toml_text import toml_text

REPORTS = {"whole": whole_report(), **odd_reports()}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: render_report(report) for name, report in REPORTS.items()}


@pytest.mark.parametrize("name", REPORTS)
def test_every_page_is_balanced_and_has_no_id_twice(pages: dict[str, str], name: str):
    page = Page(pages[name])
    assert pages[name].startswith("<!doctype html>")
    assert len(page.ids) == len(set(page.ids))
    linked = {attrs["href"][1:] for tag, attrs in page.tags if tag == "a" and attrs["href"]}
    assert linked <= set(page.ids)


@pytest.mark.parametrize("name", REPORTS)
def test_no_page_asks_the_network_for_anything(pages: dict[str, str], name: str):
    page = Page(pages[name])
    for tag, attrs in page.tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base"}
        for key in ("src", "href", "srcset", "action"):
            assert (attrs.get(key) or "#").startswith("#")
        assert not any(key.startswith("on") for key in attrs)
    style = "".join(re.findall(r"<style>(.*?)</style>", pages[name], re.DOTALL))
    assert "@import" not in style
    assert "url(" not in style
    assert all(ref.startswith("#") for ref in re.findall(r"url\(([^)]*)\)", pages[name]))


@pytest.mark.parametrize("name", REPORTS)
def test_plots_take_all_their_colours_from_the_page(pages: dict[str, str], name: str):
    plots = "".join(re.findall(r"<svg.*?</svg>", pages[name], re.DOTALL))
    assert not re.search(r"(fill|stroke): #", plots)
    used = set(re.findall(r"var\(--(\w+)\)", plots))
    assert used <= set(VARIABLES.values())
    assert all(pages[name].count(f"--{variable}:") == 3 for variable in used)  # light, dark, print


@pytest.mark.parametrize("name", REPORTS)
def test_every_plot_says_what_it_shows(pages: dict[str, str], name: str):
    plots = [attrs for tag, attrs in Page(pages[name]).tags if tag == "svg"]
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in plots)


def test_texts_of_the_run_are_escaped(pages: dict[str, str]):
    hostile = pages["hostile"]
    assert "<script" not in hostile
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile
    assert "<img" not in hostile
    assert "<b>bad</b>" not in hostile
    assert "مرحبا بالعالم 🎉" in hostile
    assert hostile.count('dir="auto"') > 5


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>${alert(4)}{{ 7 * 191 }}]]>"


def hostile_everywhere(value, at: str = ""):
    """The same data with every free text of it hostile: names, reasons, prompts, answers, addresses, configuration."""
    match value:
        case str():
            return value if at in ("verdict", "measure", "direction", "role", "kind") else f"{value}{HOSTILE}"
        case BaseModel():
            fields = {name: hostile_everywhere(getattr(value, name), name) for name in type(value).model_fields}
            return value.model_construct(**fields)
        case Mapping():
            if at in ("metrics", "numbers"):
                return value
            known = at == "config"  # its fields are
            return {key if known else f"{key}{HOSTILE}": hostile_everywhere(inner, at) for key, inner in value.items()}
        case tuple() | list():
            return type(value)(hostile_everywhere(inner, at) for inner in value)
    return value


def test_no_text_of_a_run_becomes_a_tag_an_attribute_or_a_template():
    page = render_report(hostile_everywhere(whole_report()))
    for mark in ("<script>alert", "<img src=x", "<svg onload", "1337"):
        assert mark not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 100
    assert not any(key.startswith("on") for _, attrs in Page(page).tags for key in attrs)
    assert len([tag for tag, _ in Page(page).tags]) == len([tag for tag, _ in Page(render_report(whole_report())).tags])


def test_no_text_of_a_run_becomes_a_tag_in_the_dashboards_tables():
    for table in tables_markdown(hostile_everywhere(whole_report())).values():
        assert "<script" not in table
        assert "<img" not in table


def test_the_same_data_give_the_same_bytes(pages: dict[str, str]):
    """In another process too, where hashes of strings have another seed."""
    here = Path(__file__).parent
    code = "import sys; from report_runs import *; from tasks.report_page import render_report; "
    code += "sys.stdout.reconfigure(encoding='utf-8'); print(render_report(whole_report()), end='')"
    path = f"import sys; sys.path[:0] = {[str(here), str(here.parents[1])]!r}; "
    other = subprocess.run([sys.executable, "-c", path + code], capture_output=True, check=True)
    assert other.stdout.decode() == pages["whole"]


def test_every_number_of_the_page_is_a_number_of_the_data(pages: dict[str, str]):
    """Each number is a <data> element with the exact value, and reads as that value is written."""
    report = REPORTS["whole"]
    shown = Page(pages["whole"]).data
    assert {value for value, _ in shown} == numbers_of(report)
    for value, text in shown:
        written = {number(value, d, s) for d in range(4) for s in ("plain", "share")}
        assert text in written | {duration(value)}


def numbers_of(report: ReportData) -> set[float]:
    policies = [report.summary.initial.metrics, *(r.metrics for r in report.summary.rounds)]
    metrics = [v for m in policies for k, v in m.items() if not k.endswith(("_low", "_high"))]
    answers = [a for e in report.examples for a in e.answers]
    sides = [side for p in report.pairs for side in (p.chosen, p.rejected)]
    rewards = [v for a in (*answers, *sides) for v in (a.reward, a.gold)]
    costs = [v for c in report.costs for v in (c.seconds, c.tokens)]
    totals = [v for t in step_totals(report.costs) for v in (t.seconds, t.tokens)]
    others = [*(p.margin for p in report.pairs), *(d.count for d in report.dropped)]
    return {float(v) for v in (*metrics, *rewards, *costs, *totals, *others) if v is not None}


def test_every_metric_stands_with_its_interval_and_in_its_plot(pages: dict[str, str]):
    page = Page(pages["whole"])
    for measure in MEASURES[:6]:
        for r in whole_summary().rounds:
            interval = interval_of(r.metrics, measure.name)
            assert interval
            text = number(interval.mean, measure.digits, measure.style)
            assert text in page.plot_texts
            assert f"{text} {bounds(interval, measure.digits, measure.style)}" in page.body


def test_the_headline_names_both_intervals_and_whether_they_are_disjoint(pages: dict[str, str]):
    said = "Gold reward rose from 6.54 [6.40, 6.68] to 7.60 [7.46, 7.74]. The 95% intervals do not overlap."
    body = Page(pages["whole"]).body
    assert said in body
    assert "3 rounds finished: 2 promoted, 1 rejected." in body
    assert "Over-optimisation in round 1: the reward rose while gold reward fell." in body


def test_what_was_not_measured_is_a_dash_or_said_never_a_zero(pages: dict[str, str]):
    page = Page(pages["no gold"])
    assert "Gold reward: not measured in this run." in page.body
    assert "There is no gold reward" in page.body
    answer = RoundAnswer(round=None, text="hm")
    report = REPORTS["whole"]
    example = report.examples[0].model_copy(update={"answers": (answer,)})
    blank = Page(render_report(report.model_copy(update={"examples": (example,), "pairs": ()})))
    assert f"reward {MISSING} gold {MISSING}" in blank.body


def test_empty_parts_are_named_as_missing(pages: dict[str, str]):
    body = Page(pages["nothing yet"]).body
    assert "No round has finished yet." in body
    assert "No completion was kept for show." in body
    assert "The gate has not judged a round yet." in body
    assert "Nothing was dropped." in body


def test_reasons_drops_probes_events_and_digests_are_all_there(pages: dict[str, str]):
    body, report = Page(pages["whole"]).body, REPORTS["whole"]
    for text in (
        *(reason for r in report.summary.rounds for reason in r.reasons),
        *(d.reason for d in report.dropped),
        *(item for d in report.dropped for item in d.items),
        *(p.name for p in report.probes),
        *(e.text for e in report.events),
        *(r.policy.digest for r in report.summary.rounds),
        *(v for a in report.artifacts for v in (a.artifact.digest, a.artifact.recipe, a.artifact.uri)),
    ):
        assert text in body


def test_totals_count_what_was_made_and_what_was_saved():
    """Made: 4 + 1 s and 900 + 100 tokens; found: 3 s, whose tokens are not spent again."""
    costs = (
        StepCost(round=0, step="score", seconds=4, tokens=900, reused=False),
        StepCost(round=0, step="select", seconds=2, reused=False),
        StepCost(round=1, step="score", seconds=3, tokens=800, reused=True),
        StepCost(round=2, step="score", seconds=1, tokens=100, reused=False),
    )
    assert step_totals(costs) == (
        StepTotal("score", seconds=5, saved=3, tokens=1000, made=2, reused=1),
        StepTotal("select", seconds=2, saved=0, tokens=None, made=1, reused=0),
    )


def test_the_configuration_reads_back_as_toml():
    def without_none(value: object) -> object:
        if isinstance(value, dict):
            return {k: without_none(v) for k, v in value.items() if v is not None}
        return value

    odd = {
        "a b": 'quote " \\ tab\t del\x7f é 🎉',
        "list": [1, 2.5, True, {"x": "y"}],
        "none": None,
        "t": {"u": {"v": 1}},
    }
    for config in (CONFIG, odd):
        assert tomllib.loads(toml_text(config)) == without_none(config)
    assert "# pairs is not set" in toml_text(CONFIG)
