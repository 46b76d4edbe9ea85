"""What RAD claims, and the figures it is held to."""

from functools import partial

from alignment.testbed.claims import Claim, Experiment
from alignment.testbed.rad import compared, steered


def _table(rho: float, quality: str, unlearning: str, against: str, *more: Claim) -> tuple[Claim, ...]:
    return (
        Claim.positive(f"rad R3 quality, rho = {rho:g}", "gold(rad at goal 10) - gold(dpo) > 0 at KL 1", quality),
        Claim(
            f"rad R2 unlearning, rho = {rho:g}",
            "change of log pi of good rejected responses > -0.1 nats under rad",
            unlearning,
            above=-0.1,
        ),
        Claim.positive(
            f"rad R2 unlearning against dpo, rho = {rho:g}",
            "change of log pi of good rejected responses, rad - dpo > 0",
            against,
        ),
        *more,
    )


def _half(rho: float, figure: str) -> Claim:
    return Claim.positive(f"rad R3 half, rho = {rho:g}", "gold(rad on half the pairs) - gold(dpo) > 0 at KL 1", figure)


EXPERIMENTS = (
    Experiment(
        (
            Claim(
                "rad R1 steerability",
                "rank correlation of goal and expected gold > 0.99 over goals 1 to 10",
                "paper: none; testbed 1",
                above=0.99,
            ),
            Claim("rad R1 spread", "gold(goal 10) - gold(goal 1) > 4", "paper: none; testbed +5.49", above=4),
            Claim.within(
                0.1,
                "rad control no swap",
                "|gold(goal 10) - gold(goal 1)| < 0.1 where the relabeler does not swap",
                "none: negative control; testbed below 0.1",
            ),
        ),
        steered,
        seeds=6,
    ),
    Experiment(
        _table(0, "paper: none; testbed -0.03 ± 0.23", "testbed -0.01", "paper: far smaller than dpo's; testbed +1.84"),
        partial(compared, rho=0.0),
        seeds=10,
    ),
    Experiment(
        _table(
            0.1,
            "paper: +7.2 points of AlpacaEval 2 LC on average; testbed +0.52 ± 0.19",
            "testbed +0.06",
            "paper: far smaller than dpo's; testbed +1.83",
            _half(0.1, "paper: beats dpo; testbed +0.36 ± 0.24"),
        ),
        partial(compared, rho=0.1, half=True),
        seeds=20,
    ),
    Experiment(
        _table(
            0.3,
            "paper: +7.2 points of AlpacaEval 2 LC on average; testbed +0.39 ± 0.07",
            "testbed +0.12",
            "paper: far smaller than dpo's; testbed +1.80",
            _half(0.3, "paper: beats dpo; testbed +0.38 ± 0.07"),
        ),
        partial(compared, rho=0.3, half=True),
        seeds=10,
    ),
    Experiment(
        _table(1, "paper: none; testbed -0.17 ± 0.03", "testbed +0.36", "paper: far smaller than dpo's; testbed +1.18"),
        partial(compared, rho=1.0),
        seeds=10,
    ),
)
