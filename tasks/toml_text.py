"""A configuration as TOML, for reading. What is not set stays visible as a comment, as TOML has no null."""

import json
import re
from collections.abc import Mapping, Sequence

from pydantic import JsonValue


def toml_text(config: Mapping[str, JsonValue]) -> str:
    """The configuration, plain keys before tables; ``tomllib`` reads it back, less the keys that are None."""
    return "\n".join(_lines(config, ())).strip() + "\n"


def _lines(table: Mapping[str, JsonValue], path: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(k)} = {_value(v)}" for k, v in table.items() if v is not None and not isinstance(v, Mapping)]
    lines += [f"# {_key(k)} is not set" for k, v in table.items() if v is None]
    for key, value in table.items():
        if isinstance(value, Mapping):
            here = (*path, key)
            lines += ["", f"[{'.'.join(_key(k) for k in here)}]", *_lines(value, here)]
    return lines


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _value(value: JsonValue) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(k)} = {_value(v)}' for k, v in value.items() if v is not None)} }}"
    if isinstance(value, Sequence):
        return f"[{', '.join(_value(v) for v in value)}]"
    return json.dumps(value)


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for DEL, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
