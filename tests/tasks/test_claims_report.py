import json
import math
import re
from pathlib import Path

import pytest
from page_reading import Page

from alignment.errors import UserError
from alignment.testbed.claims import Claim, Experiment, judge
from alignment.testbed.quick import EXPERIMENTS
from flows.cli import main
from tasks.claims import Finding, measure, quick_claims, write_json
from tasks.claims_show import METHODS, claims_page, claims_text, ours, tally
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
    with pytest.raises(UserError, match=r"--only 'rlhf'.*rso R1 null"):
        quick_claims("rlhf")


def test_the_command_writes_report_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page, found = tmp_path / "claims.html", tmp_path / "claims.json"
    with pytest.raises(SystemExit) as stopped:
        main(["claims", "--quick", "--only", "prs P4", "--json", str(found), "--out", str(page)])
    assert stopped.value.code == 0
    (row,) = json.loads(found.read_text())["claims"]
    assert (row["name"], row["verdict"]) == ("prs P4 split", "holds")
    assert "prs P4 split" in page.read_text()
    assert "Of 1 claims 1 hold" in capsys.readouterr().out
