"""What a round's completions are measured against, as its loss asks."""

from collections.abc import Sequence

from alignment.config import RunConfig
from alignment.losses import mixes_references, weighs_tokens
from alignment.types import Artifact
from tasks.batches import Batch, Reference
from tasks.logprobs import logprobs
from tasks.steps import Place


def references(
    config: RunConfig, reference: Artifact, second: Artifact, batches: Sequence[Batch], *, at: Place
) -> list[Reference]:
    """The log-probabilities of each batch's completions under the reference, in the precision that training has; token
    by token, and under a second reference, where the loss needs them."""
    precision, on, loss = config.train.precision, config.engine, config.train.loss
    return [
        Reference(
            sums=logprobs(reference, b.groups, precision, on=on, at=at, step=f"logprobs-{b.name}"),
            tokens=logprobs(reference, b.groups, precision, on=on, at=at, step=f"logprobs-tokens-{b.name}", of="token")
            if weighs_tokens(loss)
            else None,
            second=logprobs(second, b.groups, precision, on=on, at=at, step=f"logprobs-second-{b.name}")
            if mixes_references(loss)
            else None,
        )
        for b in batches
    ]
