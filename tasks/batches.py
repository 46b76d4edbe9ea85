"""What one round trains on, and what that is measured against."""

from alignment.types import Artifact, Record


class Batch(Record):
    """Groups, and the pairs chosen from them."""

    name: str
    """The round that made it, such as ``round-000``."""
    groups: Artifact
    pairs: Artifact


class Reference(Record):
    """Log-probabilities of one batch's completions, by the training stack."""

    sums: Artifact
    """Under the reference."""
    tokens: Artifact | None = None
    """The same token by token, where the loss weighs tokens apart."""
    second: Artifact | None = None
    """Under a second reference, where the loss mixes two."""
