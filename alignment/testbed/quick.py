"""Every claim that is decided on a testbed of arrays, without an engine."""

from alignment.testbed import claims_apl, claims_prs, claims_rad, claims_rso, claims_sera

EXPERIMENTS = (
    *claims_rso.EXPERIMENTS,
    *claims_sera.EXPERIMENTS,
    *claims_apl.EXPERIMENTS,
    *claims_prs.EXPERIMENTS,
    *claims_rad.EXPERIMENTS,
)
