"""What the training job is told and what it tells: files in a folder that driver and workers both reach."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from alignment.config import Train
from alignment.execution import Trainer
from alignment.packing import TrainingGroup
from alignment.probes import Evidence, Probe
from alignment.types import Record

OUTCOME = "outcome.json"
METRICS = "metrics.jsonl"
GROUPS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("prompt_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("completions", pa.list_(pa.list_(pa.int32())), nullable=False),
        pa.field("reference", pa.list_(pa.float64()), nullable=False),
        pa.field("reference_tokens", pa.list_(pa.list_(pa.float64()))),
        pa.field("second_reference", pa.list_(pa.float64())),
        pa.field("chosen", pa.list_(pa.int32()), nullable=False),
        pa.field("rejected", pa.list_(pa.int32()), nullable=False),
        pa.field("p", pa.list_(pa.float64()), nullable=False),
        pa.field("weights", pa.list_(pa.float64()), nullable=False),
        pa.field("reward_margins", pa.list_(pa.float64())),
    ]
)


class TrainJob(Record):
    """One training job."""

    recipe: str
    """What is asked for; checkpoints of another recipe are not resumed."""
    policy: Path
    """Transformers folder that training starts from."""
    out: Path
    """Where the trained policy is written."""
    train: Train
    trainer: Trainer
    seed: int
    deadline: float
    """Seconds since the epoch after which workers end themselves."""


class StepMetrics(Record):
    """One optimiser step; means are over all pairs of the step, on all workers."""

    step: int
    steps: int
    """How many there will be."""
    loss: float
    accuracy: float
    """Share of pairs whose chosen completion has the higher log-ratio; ties count a half."""
    margin: float
    """Mean difference of log-ratios (policy - reference), chosen minus rejected, in nats."""
    chosen_drift: float
    """Mean log-ratio of the chosen completions, in nats."""
    rejected_drift: float
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    pairs: int
    tokens: int
    """Computed, padding left out."""
    seconds: float


class TrainOutcome(Record):
    """What the first worker leaves behind at the end: probes that held, or an error that a user can mend."""

    probes: tuple[Probe, ...] = ()
    """(d) before the first step, (e) after the export."""
    error: str | None = None
    evidence: Evidence | None = None
    """Where the error is a probe that failed."""
    resumed_from: int = 0
    """Optimiser steps that a checkpoint spared the last attempt."""
    seconds: Mapping[str, float] = {}
    """Spent by the last attempt's first worker: imports, loading, steps, export."""


def write_job(scratch: Path, job: TrainJob, groups: Sequence[TrainingGroup]) -> None:
    """Lay out a job for its workers. What an earlier attempt at it left (checkpoints, metrics) stays."""
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / OUTCOME).unlink(missing_ok=True)
    pq.write_table(pa.Table.from_pylist([group.model_dump() for group in groups], GROUPS), scratch / "groups.parquet")
    write_record(scratch / "job.json", job)


def read_job(scratch: Path) -> tuple[TrainJob, list[TrainingGroup]]:
    job = TrainJob.model_validate_json((scratch / "job.json").read_text())
    rows = pq.read_table(scratch / "groups.parquet", schema=GROUPS).to_pylist()
    return job, [TrainingGroup.model_validate(row) for row in rows]


def write_record(path: Path, record: BaseModel) -> None:
    """Whole or not at all: a reader never meets half a file."""
    part = path.with_suffix(".part")
    part.write_text(record.model_dump_json())
    os.replace(part, path)


def read_metrics(scratch: Path) -> list[StepMetrics]:
    """The steps reported so far, in order; a line that is still being written is left for the next reading."""
    path = scratch / METRICS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [StepMetrics.model_validate_json(line) for line in lines if line.endswith("\n")]


def append_metrics(scratch: Path, metrics: StepMetrics) -> None:
    with (scratch / METRICS).open("a") as file:
        file.write(json.dumps(metrics.model_dump()) + "\n")


def rewind_metrics(scratch: Path, step: int) -> None:
    """Keep the first ``step`` steps: a worker that resumes reports the others again."""
    (scratch / METRICS).write_text(metrics_before(scratch, step))


def metrics_before(scratch: Path, step: int) -> str:
    """The lines of the first ``step`` steps."""
    return "".join(m.model_dump_json() + "\n" for m in read_metrics(scratch) if m.step < step)
