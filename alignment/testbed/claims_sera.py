"""What SeRA claims, and the figures it is held to."""

from functools import partial

from alignment.testbed.claims import Claim, Experiment
from alignment.testbed.sera import gain, lengthy, noisy

EXPERIMENTS = (
    Experiment(
        (
            Claim(
                "sera S1 margins find wrong labels",
                "AUC of a small implicit margin for a wrong label > 0.75 at 20% flips",
                "paper: not known; testbed 0.827",
                above=0.75,
            ),
            Claim(
                "sera S2 wrong labels kept",
                "share of wrong labels, kept / all < 0.6 at 20% flips",
                "paper: not known; testbed 0.52",
                below=0.6,
            ),
            Claim.positive(
                "sera S3 flipped labels, 20%",
                "gold(sera) - gold(dpo, equal epochs) > 0, in sd at KL 2",
                "paper: 20 to 40% better than three baselines, on other measures; testbed +0.101 ± 0.011",
                (0.079, 0.123),
            ),
            Claim.positive(
                "sera S3 over early stopping",
                "gold(sera) - gold(dpo, one iteration) > 0 at 20% flips",
                "paper: not known; testbed +0.012",
            ),
            Claim.positive(
                "sera S3 over the middle band",
                "gold(sera) - gold(middle 70%, none added) > 0 at 20% flips",
                "paper: not known; testbed +0.020",
            ),
            Claim.within(
                0.03,
                "sera S5 ensemble",
                "|gold(ensemble 0.5) - gold(ensemble 0)| < 0.03 at 20% flips",
                "paper: not known; testbed -0.008",
            ),
            Claim.negative(
                "sera control low band",
                "gold(lowest 70%) - gold(dpo) < 0 at 20% flips",
                "none: negative control; testbed -0.067",
            ),
            Claim(
                "sera control random band",
                "gold(random 70%) - gold(dpo) < 0.05 at 20% flips",
                "none: negative control",
                below=0.05,
            ),
            Claim.positive(
                "sera control gold labels",
                "gold(added pairs labelled by gold) - gold(dpo) > 0 at 20% flips",
                "none: positive control; testbed +0.377",
            ),
        ),
        noisy,
        seeds=16,
    ),
    Experiment(
        (
            Claim.positive(
                "sera S3 flipped labels, 40%",
                "gold(sera) - gold(dpo, equal epochs) > 0",
                "paper: not known; testbed +0.169 ± 0.022",
                (0.126, 0.212),
            ),
        ),
        partial(gain, flips=0.4, claim="sera S3 flipped labels, 40%"),
        seeds=16,
    ),
    Experiment(
        (
            Claim.positive(
                "sera S4 clean labels",
                "gold(sera) - gold(dpo, equal epochs) > 0 without flips",
                "paper: not known; testbed -0.104 ± 0.010",
                (-0.124, -0.084),
            ),
        ),
        partial(gain, flips=0.0, claim="sera S4 clean labels"),
        seeds=16,
    ),
    Experiment(
        (
            Claim.positive(
                "sera S6 margins follow length",
                "correlation of implicit margin and length difference > 0",
                "paper: none; testbed +0.17 to +0.23",
            ),
            Claim(
                "sera S6 less length bias",
                "length drift(sera) / length drift(dpo) < 0.8",
                "paper: less among the pairs selected; testbed 0.90",
                below=0.8,
            ),
        ),
        lengthy,
        seeds=16,
    ),
)
