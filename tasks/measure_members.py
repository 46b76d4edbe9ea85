"""Ensembles get the scale of their members."""

from alignment.types import Artifact, Group
from infra import artifacts
from tasks.inputs import Inputs
from tasks.judges import measured
from tasks.steps import Place, step_task


@step_task("standards")
def with_standards(inputs: Inputs, scored: Artifact, *, at: Place) -> Inputs:
    """The inputs with each ensemble's standards, from answers that its members scored. It makes no artifact: the
    standards follow from the answers, and bear identity in every score of the ensemble."""
    groups = list(artifacts.read_rows(scored, Group))
    return inputs.model_copy(update={"judges": tuple(measured(judge, groups) for judge in inputs.judges)})
