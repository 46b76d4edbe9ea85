"""Recipes: the digest of what was asked for, which is where an object lies."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, JsonValue

from alignment.types import SCHEMA_VERSION, Artifact, Kind, digest_of


def asked(kind: Kind, **inputs: Any) -> dict[str, JsonValue]:
    """What bears identity, as JSON: primitives, pydantic models, sequences and mappings of them. An artifact counts by
    its digest. TypeError for anything else, ValueError for a number that is not finite."""
    return {"kind": kind, "schema": SCHEMA_VERSION, "inputs": _plain(inputs, "inputs")}


def recipe_of(kind: Kind, **inputs: Any) -> str:
    """Digest of ``asked``: equal work has an equal recipe, in every process and on every machine."""
    return digest_of(asked(kind, **inputs))


def _plain(value: Any, at: str) -> JsonValue:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Artifact():
            return value.digest
        case BaseModel():
            return value.model_dump(mode="json")
        case list() | tuple():
            return [_plain(item, f"{at}[{number}]") for number, item in enumerate(value)]
        case Mapping() if all(isinstance(key, str) for key in value):
            return {key: _plain(item, f"{at}.{key}") for key, item in value.items()}
    raise TypeError(f"{at}: a {type(value).__name__} has no stable JSON form, so it cannot bear identity")
