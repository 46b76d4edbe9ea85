"""The committed results are those of the claims that there are, and the README tells them as they are."""

import json
from collections import Counter
from pathlib import Path

from alignment.testbed.claims import Result
from alignment.testbed.claims_sandbox import READINGS
from alignment.testbed.quick import EXPERIMENTS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text().replace("\N{MINUS SIGN}", "-")
RESULTS = {
    row["name"]: Result.model_validate(row) for row in json.loads((ROOT / "flows/claims.json").read_text())["claims"]
}
TOLD = {
    "rso R1 sampling source": "+0.09 sd [0.05, 0.13]",
    "sera S3 flipped labels, 20%": "+0.10 [0.08, 0.13]",
    "prs P1 over prand, N = 16": "+0.95 [0.94, 0.97]",
    "rad R3 quality, rho = 0.1": "+0.59 [0.39, 0.78]",
    "rad R3 quality, rho = 0.3": "+0.43 [0.28, 0.57]",
    "prs sandbox preference": "+0.65 [0.55, 0.76]",
    "prs sandbox training preference": "+0.16 [0.13, 0.20]",
    "prs sandbox over preference-conditioned": "-0.38 [-0.48, -0.27]",
    "prs sandbox training over preference-conditioned": "-0.08 [-0.10, -0.05]",
    "prs sandbox against empty draft": "-0.24 [-0.35, -0.13]",
    "prs sandbox against foreign draft": "+0.62 [0.48, 0.77]",
    "prs sandbox against foreign feedback": "+0.05 [-0.04, 0.13]",
    "prs sandbox against no feedback": "-0.25 [-0.34, -0.16]",
    "rso sandbox over best_worst": "-0.09 [-0.11, -0.07]",
    "sera sandbox over best_worst": "-0.14 [-0.16, -0.12]",
    "rad sandbox over dpo": "-0.36 [-0.43, -0.29]",
    "rad sandbox steerability": "0.10 [0.04, 0.16]",
    "prs sandbox training null": "0.09 [0.02, 0.17]",
}


def numbers(told: str) -> list[float]:
    return [float(word.strip("[],")) for word in told.split() if word != "sd"]


def test_every_claim_there_is_was_measured_and_no_other():
    claims = [claim.name for experiment in EXPERIMENTS for claim in experiment.claims]
    claims += [reading.claim.name for reading in READINGS]
    assert sorted(RESULTS) == sorted(claims)
    assert all(result.ours is not None for result in RESULTS.values())


def test_the_readme_says_how_many_hold():
    counts = Counter(result.verdict for result in RESULTS.values())
    assert (
        f"Of {len(RESULTS)} claims and controls {counts['holds']} hold, {counts['does not hold']} do not hold and "
        f"{counts['not resolved']} are not resolved." in README
    )


def test_the_figures_of_the_readme_are_the_results_rounded():
    for name, told in TOLD.items():
        result = RESULTS[name]
        assert told in README, name
        assert result.ours is not None
        assert result.low is not None
        assert result.high is not None
        exact = (result.ours, result.low, result.high)
        assert all(abs(a - b) <= 0.0051 for a, b in zip(numbers(told), exact, strict=True)), (name, exact)


def test_the_readme_names_every_claim_of_the_sandbox_that_does_not_hold():
    """As many rows as there are, and one row for two of them."""
    lost = [name for name, result in RESULTS.items() if "sandbox" in name and result.verdict == "does not hold"]
    rows = [line for line in README.splitlines() if line.startswith("|") and line.endswith("does not hold |")]
    untold = set(lost) - set(TOLD)
    assert len(rows) == len(lost) - len(untold)
    assert untold == {"prs sandbox training against empty draft"}
