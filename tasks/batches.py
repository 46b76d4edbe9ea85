"""What one round trains on."""

from alignment.types import Artifact, Record


class Batch(Record):
    """Groups, and the pairs chosen from them."""

    name: str
    """The round that made it, such as ``round-000``."""
    groups: Artifact
    pairs: Artifact
