"""What PRS claims, and the figures it is held to."""

from functools import partial

from alignment.testbed.claims import Claim, Experiment
from alignment.testbed.prs import Cell, gains, saving, split, training

SAMPLING: dict[str, tuple[Cell, Cell]] = {
    "prs P1 over prand, N = 16": (("prs", 16), ("prand", 16)),
    "prs P1 over prand, N = 128": (("prs", 128), ("prand", 128)),
    "prs P1 feedback, N = 32": (("prs", 32), ("without feedback", 32)),
    "prs P1 refinement without feedback, N = 32": (("without feedback", 32), ("prand", 32)),
    "prs P1 preference, N = 16": (("prand", 16), ("rand", 16)),
    "prs control copies nothing": (("copies nothing", 16), ("prand", 16)),
    "prs control flags everything": (("flags all", 16), ("prand", 16)),
    "prs control inverted critic": (("inverted", 16), ("prand", 16)),
}
NOISY: dict[str, tuple[Cell, Cell]] = {
    "prs P1 over prand, noisy reward": (("prs", 16), ("prand", 16)),
    "prs P1 refinement without feedback, noisy reward": (("without feedback", 16), ("prand", 16)),
}

EXPERIMENTS = (
    Experiment(
        (
            Claim.positive(
                "prs P1 over prand, N = 16",
                "gold(prs) - gold(prand) > 0, on a scale of 0 to 10",
                "paper: +0.5 to +0.6 of reward; testbed +0.93 ± 0.05",
                (0.83, 1.03),
            ),
            Claim.positive(
                "prs P1 over prand, N = 128",
                "gold(prs) - gold(prand) > 0",
                "paper: +0.8 of reward; testbed +1.23 ± 0.05",
                (1.13, 1.33),
            ),
            Claim.positive(
                "prs P1 feedback, N = 32",
                "gold(prs) - gold(prs without feedback) > 0",
                "paper: +0.2 of reward; testbed +0.89 ± 0.05",
                (0.79, 0.99),
            ),
            Claim.positive(
                "prs P1 refinement without feedback, N = 32",
                "gold(prs without feedback) - gold(prand) > 0",
                "paper: +0.4 of reward; testbed +0.22 ± 0.05",
                (0.12, 0.32),
            ),
            Claim.positive(
                "prs P1 preference, N = 16",
                "gold(prand) - gold(rand) > 0",
                "paper: +0.6 to +0.9 of reward; testbed +0.71 ± 0.05",
                (0.61, 0.81),
            ),
            Claim.within(
                0.05,
                "prs control copies nothing",
                "|gold(prs that ignores the draft) - gold(prand)| < 0.05 at N = 16",
                "none: negative control; testbed +0.04 ± 0.05",
                (-0.06, 0.14),
            ),
            Claim.within(
                0.05,
                "prs control flags everything",
                "|gold(prs whose critic flags all) - gold(prand)| < 0.05 at N = 16",
                "none: negative control; testbed -0.01 ± 0.05",
                (-0.11, 0.09),
            ),
            Claim.negative(
                "prs control inverted critic",
                "gold(prs whose critic flags what is right) - gold(prand) < 0 at N = 16",
                "none: negative control; testbed -0.35 ± 0.05",
                (-0.45, -0.25),
            ),
        ),
        partial(gains, wanted=SAMPLING),
        seeds=16,
    ),
    Experiment(
        (
            Claim.positive(
                "prs P1 over prand, noisy reward",
                "gold(prs) - gold(prand) > 0 at N = 16 under reward noise of 1.5",
                "paper: none; testbed +0.7",
            ),
            Claim.positive(
                "prs P1 refinement without feedback, noisy reward",
                "gold(prs without feedback) - gold(prand) > 0 at N = 16 under reward noise of 1.5",
                "paper: none; testbed -0.02 ± 0.05",
                (-0.12, 0.08),
            ),
        ),
        partial(gains, wanted=NOISY, noise=1.5),
        seeds=16,
    ),
    Experiment(
        (
            Claim(
                "prs P2 efficiency",
                "N of prand / N of prs at equal gold > 2",
                "paper: about 3 to 4; testbed at least 8",
                above=2,
            ),
        ),
        saving,
        seeds=12,
    ),
    Experiment(
        (
            Claim.positive(
                "prs P3 training over prand",
                "gold(trained on prs) - gold(trained on prand) > 0 after 3 rounds",
                "paper: wins 50.5% to 59% against prand; testbed +1.43",
            ),
            Claim.positive(
                "prs P3 training over prand, last round only",
                "gold(trained on prs) - gold(trained on prand) > 0 after 3 rounds",
                "paper: none; testbed +1.55",
            ),
            Claim.positive(
                "prs P3 prand over rand",
                "gold(trained on prand) - gold(trained on rand) > 0",
                "paper: wins 44% to 67.5% against rand; testbed +0.85",
            ),
            Claim.positive(
                "prs P3 without feedback over prand",
                "gold(trained on prs without feedback) - gold(trained on prand) > 0",
                "paper: none; testbed +0.10 to +0.15",
                (0.05, 0.2),
            ),
            Claim.within(
                0.05,
                "prs P3 rand learns no preference",
                "|change of the stated part under rand| < 0.05",
                "none: null control; testbed 0.00",
            ),
        ),
        training,
        seeds=12,
    ),
    Experiment(
        (
            Claim.positive(
                "prs P4 split",
                "gold(half, half) - max(gold(all, none), gold(one, rest)) > 0 at N = 16",
                "paper: +0.5 to +0.6 of reward; testbed: positive",
            ),
        ),
        split,
        seeds=12,
    ),
)
