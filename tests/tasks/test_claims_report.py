import json
import math
import re
from pathlib import Path

import pytest
from page_reading import Page

from alignment.errors import UserError
from alignment.summary import Interval
from alignment.testbed.cells import Cell
from alignment.testbed.claims import Claim, Experiment, judge
from alignment.testbed.claims_sandbox import matching_readings
from alignment.testbed.outcomes import Outcome, all_needed
from alignment.testbed.quick import EXPERIMENTS
from flows.cli import main
from tasks.claims import Finding, asked_for, measure, sandbox_findings, write_json
from tasks.claims_grid import FAINT, STRONG, arms_table, grid
from tasks.claims_show import METHODS, claims_page, claims_text, in_order, ours, tally
from tasks.svg import VARIABLES


def values(seed: int) -> dict[str, float]:
    return {"rso <x>": 1.0 + 0.1 * seed, "rso y": math.nan, "prs z": -1.0 + 0.1 * seed}


EXPERIMENT = Experiment(
    (
        Claim("rso <x>", "x > 0", "paper: +1; testbed +1.1", above=0, testbed=(0.9, 1.3)),
        Claim("rso y", "|y| < 0.1", "none", above=-0.1, below=0.1),
        Claim("prs z", "z > 0", "none", above=0),
    ),
    values,
    seeds=3,
)


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    results = judge(EXPERIMENT, [values(seed) for seed in range(3)], 6.0)
    return [Finding(c, r) for c, r in zip(EXPERIMENT.claims, results, strict=True)]


def test_every_claim_has_a_name_of_its_own_that_begins_with_its_method():
    names = [c.name for e in EXPERIMENTS for c in e.claims]
    assert len(names) == len(set(names))
    assert {name.split()[0] for name in names} <= set(METHODS)
    assert all(c.above < c.below for e in EXPERIMENTS for c in e.claims)
    assert all(math.isfinite(c.above) or math.isfinite(c.below) for e in EXPERIMENTS for c in e.claims)


def test_measured_in_other_processes_the_values_are_the_same(findings: list[Finding]):
    (found,) = measure([EXPERIMENT])
    assert [f.result.ours for f in found] == [f.result.ours for f in findings]


def test_the_json_has_the_fields_that_others_read(findings: list[Finding], tmp_path: Path):
    write_json(findings, tmp_path / "claims.json")
    rows = json.loads((tmp_path / "claims.json").read_text())["claims"]
    fields = {"name", "inequality", "paper", "ours", "low", "high", "verdict", "seconds"}
    assert [set(row) for row in rows] == [fields] * 3
    assert [row["verdict"] for row in rows] == ["holds", "not resolved", "does not hold"]
    assert rows[1]["ours"] is None
    assert sum(row["seconds"] for row in rows) == pytest.approx(6.0)


def test_the_page_stands_alone_and_takes_its_colours_from_the_theme(findings: list[Finding]):
    html = claims_page(findings)
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "img", "iframe"}
        assert all((attributes.get(key) or "#").startswith("#") for key in ("src", "href"))
    plots = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(plots) == 3
    assert not re.search(r"(fill|stroke): #", "".join(plots))
    assert set(re.findall(r"var\(--(\w+)\)", "".join(plots))) <= set(VARIABLES.values())


def test_the_page_and_the_terminal_tell_claim_figure_interval_and_verdict(findings: list[Finding]):
    body = Page(claims_page(findings)).body
    for claim, result in findings:
        for text in (claim.name, claim.inequality, claim.paper, ours(result), result.verdict):
            assert text in body
    assert "Of 3 claims 1 hold, 1 do not hold and 1 are not resolved." in body
    assert tally(findings) in body
    assert claims_text(findings).row_count == 3


def test_a_name_that_no_claim_has_is_refused_with_the_names_there_are():
    with pytest.raises(UserError, match=r"--only 'rlhf'.*rso R1 null.*prs sandbox null"):
        asked_for("rlhf", quick=False)
    with pytest.raises(UserError, match=r"--only 'prs sandbox'.*rso R1 null"):
        asked_for("prs sandbox", quick=True)


def test_a_name_chooses_among_both_testbeds():
    """'against' is in names of both; 'sandbox' in none on arrays, and 'R1' in none in the sandbox."""
    counts = {only: tuple(map(len, asked_for(only, quick=False))) for only in ("sandbox", "rso R1", "rad", None)}
    assert counts["sandbox"] == (0, counts[None][1])
    assert counts["rso R1"][1] == 0 < counts["rso R1"][0]
    assert min(counts["rad"]) > 0
    assert asked_for(None, quick=True).readings == []


SANDBOX = matching_readings("prs sandbox")


def outcome(gold: float, tokens: float) -> Outcome:
    golds = {"a": gold, "b": gold + 0.5, "c": gold - 0.5}
    return Outcome(
        best=golds, trained=golds, completions=12, tokens=tokens, draft_tokens=30, kl=Interval(mean=1.5),
        gold=Interval(mean=gold, low=gold - 0.25, high=gold + 0.25), seconds=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def outcomes() -> dict[Cell, Outcome]:
    """Gold 6, 6.05, 6.1, ... and 400, 410, ... tokens, in the order of the runs."""
    return {cell: outcome(6 + 0.05 * i, 400 + 10 * i) for i, cell in enumerate(all_needed(SANDBOX))}


def test_the_page_holds_both_testbeds_and_every_cell_with_gold_kl_and_tokens(findings, outcomes):
    both = in_order([*findings, *sandbox_findings(SANDBOX, outcomes)])
    html = claims_page(both, outcomes)
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert [f.method for f in both] == ["rso"] * 2 + ["prs"] * (1 + len(SANDBOX))
    for text in ("testbed of arrays", "prs sandbox against empty draft", "tokens generated per prompt", "KL 1.50"):
        assert text in page.body
    runs = {attributes["title"] for tag, attributes in page.tags if tag == "td" and attributes.get("title")}
    assert runs == {cell.run for cell in outcomes if cell.arm in ("prs", "preference_conditioned", "independent")
                    and cell.seed == 0}  # fmt: skip
    assert "user text" not in page.body


def test_the_page_of_arrays_alone_has_no_word_of_the_sandbox(findings):
    assert "sandbox" not in Page(claims_page(findings)).body.lower()


def test_colour_goes_from_faint_to_strong_with_gold(outcomes):
    heats = [heat for row in grid(outcomes).rows for heat in row.cells if heat]
    assert all(FAINT <= heat.mix <= STRONG for heat in heats)
    assert sorted(heats, key=lambda heat: heat.gold.mean) == sorted(heats, key=lambda heat: (heat.mix, heat.gold.mean))


def test_columns_without_a_run_are_left_out():
    made = {Cell("prs", "rso", "sft"): outcome(7, 400)}
    shown = grid(made)
    assert (shown.columns, [(row.arm, row.update) for row in shown.rows]) == (("rso",), [("prs", "sft")])
    assert arms_table(made).rows == ()


def test_samplers_tell_their_tokens_against_those_of_prs(outcomes):
    """PRS has 400, and stands first; the next run has 410, which is 102.5%."""
    first, second, *_ = arms_table(outcomes).rows
    assert [cell.text for cell in first[:5]] == ["prs", "0", "12.0", "400", "100.0%"]
    assert second[4].text == "102.5%"


def test_what_comes_from_elsewhere_is_escaped(findings):
    """The claim 'rso <x>' would be a tag."""
    assert "<x>" not in claims_page(findings)


def test_the_command_writes_report_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page, found = tmp_path / "claims.html", tmp_path / "claims.json"
    with pytest.raises(SystemExit) as stopped:
        main(["claims", "--quick", "--only", "prs P4", "--json", str(found), "--out", str(page)])
    assert stopped.value.code == 0
    (row,) = json.loads(found.read_text())["claims"]
    assert (row["name"], row["verdict"]) == ("prs P4 split", "holds")
    assert "prs P4 split" in page.read_text()
    assert "Of 1 claims 1 hold" in capsys.readouterr().out
