"""Text files that are there whole or not at all."""

import os
from pathlib import Path

from alignment.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write beside the file and move it there, so that no reader and no crash sees half of it. UserError where that
    cannot be."""
    if not path.name or not str(path).isprintable():
        raise UserError(f"{str(path)!a} is no name for a file; give another one")
    aside = path.with_name(f".{path.name}.tmp")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); give another file") from error
