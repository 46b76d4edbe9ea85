"""What APL claims, and the figures it is held to."""

from functools import partial

from alignment.testbed.apl import noisy, uncertain
from alignment.testbed.claims import Claim, Experiment

EXACT = "apl A3 uncertainty with copies, exact labels"
CURVED = "apl A3 uncertainty with copies, curved reward"

EXPERIMENTS = (
    Experiment(
        (
            Claim.positive(
                "apl A1 certainty, 256 labels",
                "win rate(certainty) - win rate(random) > 0",
                "paper: +0.05 on IMDB at 1,024 labels; testbed +0.007 ± 0.003",
                (0.001, 0.013),
            ),
            Claim.positive(
                "apl A1 certainty, 192 labels",
                "win rate(certainty) - win rate(random) > 0",
                "paper: +0.04 on IMDB at 512 labels; testbed: about +0.01",
            ),
            Claim.positive(
                "apl A2 certainty over distinct",
                "win rate(certainty) - win rate(random, distinct) > 0 at 256 labels",
                "paper: not compared; testbed -0.002",
            ),
            Claim.positive(
                "apl A2 distinct over random",
                "win rate(random, distinct) - win rate(random) > 0 at 256 labels",
                "paper: not compared; testbed +0.009 ± 0.003",
                (0.003, 0.015),
            ),
            Claim.negative(
                "apl A3 uncertainty with copies",
                "win rate(uncertainty) - win rate(random) < 0 at 256 labels, copies not filtered",
                "paper: -0.04 on IMDB at 512 labels; testbed -0.097 ± 0.019",
                (-0.134, -0.060),
            ),
            Claim.negative(
                "apl A3 uncertainty among distinct",
                "win rate(uncertainty) - win rate(random) < 0 at 256 labels, copies filtered",
                "paper: -0.04 on IMDB at 512 labels, filter not known",
            ),
            Claim.positive(
                "apl A4 agreement",
                "labels foretold by the policy, certainty - distinct > 0",
                "paper: none; testbed +0.10",
            ),
            Claim(
                "apl A4 agreement below 1",
                "labels foretold by the policy under certainty < 0.95",
                "paper: none; testbed 0.69 to 0.78",
                below=0.95,
            ),
            Claim.positive(
                "apl A5 labels saved",
                "labels(random) - labels(certainty) to the same win rate > 0",
                "paper: none; testbed: none",
            ),
            Claim.positive(
                "apl entropy",
                "win rate(entropy) - win rate(random) > 0 at 256 labels",
                "paper: -0.02 on IMDB at 1,024 labels; testbed -0.001",
            ),
            Claim.positive(
                "apl hybrid",
                "win rate(hybrid) - win rate(random) > 0 at 256 labels",
                "paper: not known; testbed +0.007",
            ),
        ),
        noisy,
        seeds=24,
    ),
    Experiment(
        (
            Claim.negative(
                EXACT,
                "win rate(uncertainty) - win rate(random) < 0 at 256 labels",
                "paper: -0.04 on IMDB at 512 labels; testbed -0.091 ± 0.014",
                (-0.118, -0.064),
            ),
        ),
        partial(uncertain, claim=EXACT, labeller="exact"),
        seeds=16,
    ),
    Experiment(
        (
            Claim.negative(
                CURVED,
                "win rate(uncertainty) - win rate(random) < 0 at 256 labels, gold not linear",
                "paper: none; testbed -0.185 ± 0.021",
                (-0.226, -0.144),
            ),
        ),
        partial(uncertain, claim=CURVED, labeller="noisy", curvature=0.35),
        seeds=16,
    ),
)
