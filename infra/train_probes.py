"""Probes of a training job: that padding changes no log-probability, and that what was exported is what was trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.logprobs import CausalModel, Row, row_logprobs, token_logprobs
from alignment.packing import TrainingGroup
from alignment.probes import Probe
from infra import checks
from infra.model_folder import safetensors_header
from infra.train_data import TrainJob
from infra.train_engine import DeepSpeedEngine, Gang

PROBED = 8


def padding_changes_no_logprob(engine: DeepSpeedEngine, job: TrainJob, groups: Sequence[TrainingGroup]) -> Probe:
    """Probe (d): rows in one padded pass, as training runs them, against each in a pass of its own. A collective.

    Raises ProbeFailed, on all workers alike. What makes it fail: a model that reads padding, or whose positions depend
    on the longest row of a batch.
    """
    import torch

    rows = _shortest_and_longest(groups)
    with torch.no_grad():
        padded = token_logprobs(engine, rows).tolist()
        plain = [token_logprobs(engine, [row]).tolist()[0] for row in rows]
    cut = [logprobs_T[: len(row.completion)] for row, logprobs_T in zip(rows, padded, strict=True)]
    return checks.check_padding(str(job.policy), rows, cut, plain, job.train.precision)


def reload_gives_same_logprobs(
    engine: DeepSpeedEngine, job: TrainJob, gang: Gang, groups: Sequence[TrainingGroup]
) -> list[Probe]:
    """Probe (e), on the first worker; empty on the others. A collective.

    Raises ProbeFailed when the exported model's log-probabilities are not the trainer's, UserError when a tensor is
    empty, missing or unknown to the model's configuration.
    """
    rows = [row for group in groups[:PROBED] for row in _rows(group)][:PROBED]
    trained = _logprobs(engine, rows)
    if gang.rank != 0:
        return []
    reloaded = _logprobs(_reload(job.out, engine), rows)
    return [checks.check_reload(str(job.out), rows, trained, reloaded, job.train.precision)]


def _rows(group: TrainingGroup) -> list[Row]:
    return [Row(group.prompt_ids, completion) for completion in group.completions]


def _shortest_and_longest(groups: Sequence[TrainingGroup]) -> list[Row]:
    """Rows of both ends, where padding is most; the shorter half first."""
    rows = [row for group in groups for row in _rows(group)]
    rows.sort(key=lambda row: len(row.prompt) + len(row.completion))
    return rows if len(rows) <= PROBED else rows[: PROBED // 2] + rows[-(PROBED // 2) :]


def _logprobs(model: CausalModel, rows: Sequence[Row]) -> list[float]:
    import torch

    with torch.no_grad():
        return row_logprobs(model, rows).tolist()


def _reload(folder: Path, engine: DeepSpeedEngine) -> CausalModel:
    from transformers import AutoModelForCausalLM

    for file in folder.glob("*.safetensors"):
        safetensors_header(file)  # refuses empty tensors
    dtype = next(engine.module.parameters()).dtype
    safely: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
    opened: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True, **safely)
    model, loading = opened
    wrong = {what: sorted(map(str, loading[what])) for what in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        raise UserError(f"{folder}: the exported weights do not fit the model's configuration: {wrong}")
    return model.to(engine.device).train(engine.module.training)
