"""What RSO claims, and the figures it is held to."""

from functools import partial

from alignment.testbed.claims import Claim, Experiment
from alignment.testbed.rso import blinded, differences, hacked

PAPER_R1 = "paper: +4.1 points of gold win rate on TL;DR, +0.5 on HH"

CURVED = {
    "rso R1 sampling source": ("0.5", "inf"),
    "rso R1 policy samples": ("inf", "direct"),
    "rso R2 loss": ("hinge", "0.5"),
    "rso R3 more samples": ("sft64", "inf"),
    "rso R3 rejection over more samples": ("0.5", "sft64"),
    "rso R4 flat below beta 0.5": ("0.02", "0.5"),
    "rso R4 weaker at beta 2": ("0.5", "2"),
    "rso R6 over max-min": ("0.5", "max-min"),
}
STEEP = {
    "rso R1 sampling source, curvature 0.8": ("0.5", "inf"),
    "rso R1 policy samples, curvature 0.8": ("inf", "direct"),
    "rso R6 over max-min, curvature 0.8": ("0.5", "max-min"),
}
NULL = {"rso R1 null": ("0.5", "inf")}

EXPERIMENTS = (
    Experiment(
        (
            Claim.positive(
                "rso R1 sampling source",
                "gold(rso) - gold(sft) > 0, in sd at KL 2",
                f"{PAPER_R1}; testbed +0.095 ± 0.026",
                (0.044, 0.146),
            ),
            Claim.positive(
                "rso R1 policy samples",
                "gold(sft) - gold(direct) > 0",
                "paper: +2.1 points of gold win rate on TL;DR, +22.5 on HH; testbed +0.346 ± 0.066",
                (0.217, 0.475),
            ),
            Claim.within(
                0.05,
                "rso R2 loss",
                "|gold(hinge-norm) - gold(sigmoid-norm)| < 0.05",
                "paper: +1.2 points of gold win rate on TL;DR, -1.4 on HH; testbed -0.003",
            ),
            Claim.within(
                0.04,
                "rso R3 more samples",
                "|gold(sft64) - gold(sft8)| < 0.04",
                "paper: +0.3 points of proxy win rate; testbed +0.005 ± 0.016",
                (-0.026, 0.036),
            ),
            Claim.positive(
                "rso R3 rejection over more samples",
                "gold(rso) - gold(sft64) > 0",
                "paper: +3.5 points of proxy win rate; testbed +0.090",
            ),
            Claim.within(
                0.05,
                "rso R4 flat below beta 0.5",
                "|gold(beta 0.02) - gold(beta 0.5)| < 0.05, beta in sd of rewards",
                "paper: best at 0.5 of {0, 0.05, 0.5, 5}; testbed -0.004",
            ),
            Claim.positive(
                "rso R4 weaker at beta 2",
                "gold(beta 0.5) - gold(beta 2) > 0",
                "paper: best at 0.5 of {0, 0.05, 0.5, 5}; testbed +0.047",
            ),
            Claim.positive("rso R6 over max-min", "gold(rso) - gold(max-min of 64) > 0", "paper: none; testbed +0.109"),
        ),
        partial(differences, curvature=0.35, arms=CURVED),
        seeds=24,
    ),
    Experiment(
        (
            Claim.positive(
                "rso R1 sampling source, curvature 0.8",
                "gold(rso) - gold(sft) > 0",
                f"{PAPER_R1}; testbed +0.165 ± 0.038",
                (0.091, 0.239),
            ),
            Claim.positive(
                "rso R1 policy samples, curvature 0.8",
                "gold(sft) - gold(direct) > 0",
                "paper: +2.1 points of gold win rate on TL;DR; testbed +0.668 ± 0.105",
                (0.462, 0.874),
            ),
            Claim.positive(
                "rso R6 over max-min, curvature 0.8",
                "gold(rso) - gold(max-min of 64) > 0",
                "paper: none; testbed: about 0",
            ),
        ),
        partial(differences, curvature=0.8, arms=STEEP),
        seeds=16,
    ),
    Experiment(
        (
            Claim.within(
                0.03,
                "rso R1 null",
                "|gold(rso) - gold(sft)| < 0.03 where the policy class is right",
                "none: null control; testbed -0.009 ± 0.005",
                (-0.019, 0.001),
            ),
        ),
        partial(differences, curvature=0.0, arms=NULL),
        seeds=32,
    ),
    Experiment(
        (
            Claim.within(
                0.03,
                "rso control blind acceptance",
                "|gold(accepted by others' rewards) - gold(sft)| < 0.03",
                "none: negative control",
            ),
        ),
        blinded,
        seeds=46,
    ),
    Experiment(
        (
            Claim.positive(
                "rso R5 hacked reward rises", "proxy(beta 0) - proxy(sft) > 0", "paper: none; testbed +0.140"
            ),
            Claim.negative("rso R5 hacked gold falls", "gold(beta 0) - gold(sft) < 0", "paper: none; testbed -0.153"),
            Claim.negative(
                "rso R5 hacked at beta 0.5", "gold(beta 0.5) - gold(sft) < 0", "paper: none; testbed -0.102"
            ),
            Claim.positive("rso R5 safe at beta 8", "gold(beta 8) - gold(beta 0) > 0", "paper: none; testbed +0.174"),
        ),
        hacked,
        seeds=24,
    ),
)
