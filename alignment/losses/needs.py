"""What a loss asks of the training step and of its references, beyond two log-probabilities of each pair."""

from alignment.losses.absolute import BCO, KTO
from alignment.losses.corrected import LDDPO, MRPO
from alignment.losses.loss import Loss
from alignment.losses.sets import AOT


def spans_step(loss: Loss) -> bool:
    """Whether a pair's loss depends on log-probabilities of other prompts' pairs: those of the whole optimiser step,
    however many passes and workers hold them."""
    match loss:
        case AOT() | KTO() | BCO(shift="step_mean"):
            return True
        case _:
            return False


def weighs_tokens(loss: Loss) -> bool:
    """Whether the loss needs log-probabilities token by token, of the policy and of the reference."""
    return isinstance(loss, LDDPO)


def mixes_references(loss: Loss) -> bool:
    """Whether the loss measures against two references."""
    return isinstance(loss, MRPO)
