"""Prompts and preference pairs from files people have: JSONL, JSON or Parquet, optionally gzipped, at any address.

A row that is no prompt or no pair is named by file and line, and stops the run before an engine starts; with
``skip_bad_rows`` it is dropped with the same reason.
"""

from collections.abc import Callable
from itertools import islice
from typing import Generic, Literal, NamedTuple, TypeVar

from pydantic import JsonValue

from alignment.errors import UserError
from alignment.formats import RowFormat, pair_format, pair_of, prompt_format, prompt_of
from alignment.pair_rows import LabelledRow, PairRow, pair_labels
from alignment.turns import Row, RowError, kind_of
from alignment.types import Dropped, Prompt, Record
from infra.row_files import FileRow, read_rows

Content = TypeVar("Content")
Parsed = TypeVar("Parsed")


class BadRow(Record):
    """A row that cannot be used."""

    file: str
    line: int
    """From 1, as editors count; in JSON lists and Parquet the row's number."""
    reason: str
    unit: Literal["line", "row"] = "line"

    @property
    def where(self) -> str:
        return f"{self.file}: {self.unit} {self.line}"


class PromptRows(Record):
    """What a prompt file holds."""

    format: str
    """The fields it was read by and those kept as metadata, for people."""
    prompts: tuple[Prompt, ...]
    dropped: tuple[Dropped, ...]


class PairRows(Record):
    """What a file of preference pairs holds."""

    format: str
    pairs: tuple[PairRow, ...]
    dropped: tuple[Dropped, ...]


def read_prompts(path: str, *, limit: int | None = None, skip_bad_rows: bool = False) -> PromptRows:
    """The prompts of a file's first ``limit`` rows. Of equal prompts the first is kept, the others are dropped.

    Raises UserError for a file that cannot be read, for rows of no known shape, and for the first bad row.
    """
    name, found, dropped = _read(path, _PROMPTS, limit, skip_bad_rows)
    first: dict[str, str] = {}
    kept: list[Prompt] = []
    for where, prompt in found.items():
        if (earlier := first.setdefault(prompt.id, where)) == where:
            kept.append(prompt)
        else:
            reason = f"the same prompt as {earlier.removeprefix(f'{path}: ')}"
            dropped.append(Dropped(step="prompts", item=where, reason=reason))
    return PromptRows(format=name, prompts=tuple(kept), dropped=tuple(dropped))


def read_pairs(path: str, *, limit: int | None = None, skip_bad_rows: bool = False) -> PairRows:
    """The preference pairs of a file's first ``limit`` rows, several per prompt allowed.

    Single labels are paired where one prompt has both kinds; the others are dropped. Raises UserError as
    ``read_prompts`` does, and where no pair is left.
    """
    name, found, dropped = _read(path, _PAIRS, limit, skip_bad_rows)
    pairs = [row for row in found.values() if isinstance(row, PairRow)]
    labelled = {where: row for where, row in found.items() if isinstance(row, LabelledRow)}
    made, unpaired = pair_labels(labelled)
    if not pairs and not made:
        raise UserError(
            f"{path}: {len(labelled)} labelled completions and no prompt with both labels, so there is no pair. "
            "Give at least one wanted and one unwanted completion of a prompt"
        )
    return PairRows(format=name, pairs=(*pairs, *made), dropped=(*dropped, *unpaired))


class _Wanted(NamedTuple, Generic[Content, Parsed]):
    """What is looked for in a file."""

    step: Literal["prompts", "pairs"]
    detect: Callable[[Row], RowFormat[Content] | None]
    parse: Callable[[RowFormat[Content], Row], Parsed]
    shapes: str


_PROMPTS = _Wanted(
    "prompts",
    prompt_format,
    prompt_of,
    "prompt (text or messages), messages, conversations, instruction or question",
)
_PAIRS = _Wanted(
    "pairs",
    pair_format,
    pair_of,
    "chosen and rejected beside a prompt, messages or conversations; chosen and rejected as whole conversations; or "
    "messages and label",
)


def _read(
    path: str, wanted: _Wanted[Content, Parsed], limit: int | None, skip_bad_rows: bool
) -> tuple[str, dict[str, Parsed], list[Dropped]]:
    """How rows were read, what each holds by where it stands, and what was dropped."""
    rows = list(islice(read_rows(path), limit))
    objects = [row.value for row in rows if isinstance(row.value, dict)]
    known = next((shape for row in objects if (shape := wanted.detect(row))), None)
    if objects and known is None:
        fields = ", ".join(f"{field} ({kind_of(value)})" for field, value in objects[0].items()) or "none"
        raise UserError(
            f"{path} holds no {wanted.step} in a known shape. Its fields: {fields}. "
            f"Rename them to one of: {wanted.shapes}"
        )
    found: dict[str, Parsed] = {}
    bad: list[BadRow] = []
    for row in rows:
        try:
            found[f"{path}: {row.unit} {row.number}"] = _parsed(row, known, wanted.parse)
        except RowError as e:
            bad.append(BadRow(file=path, line=row.number, reason=str(e), unit=row.unit))
    if bad and not (skip_bad_rows and found):
        raise UserError(_refusal(bad, len(rows)))
    return _announced(known, objects), found, [Dropped(step=wanted.step, item=r.where, reason=r.reason) for r in bad]


def _parsed(
    row: FileRow, known: RowFormat[Content] | None, parse: Callable[[RowFormat[Content], Row], Parsed]
) -> Parsed:
    if row.error:
        raise RowError(row.error)
    if not isinstance(row.value, dict) or known is None:
        raise RowError(f"it is {kind_of(row.value)}, expected an object with named fields")
    return parse(known, row.value)


def _announced(known: RowFormat[Content] | None, rows: list[dict[str, JsonValue]]) -> str:
    if known is None:
        return ""
    others = [field for field in dict.fromkeys(field for row in rows for field in row) if field not in known.uses]
    return known.name + (f"; metadata: {', '.join(others)}" if others else "")


def _refusal(bad: list[BadRow], rows: int) -> str:
    first = f"{bad[0].where}: {bad[0].reason}"
    if len(bad) == rows:
        return f"{first}. None of its {rows} rows is good: mend the file"
    counted = f"It is the first of {len(bad)} bad rows" if len(bad) > 1 else "It is the only bad row"
    return f"{first}. {counted} of {rows}: mend the file, or drop them with --skip-bad-rows"
