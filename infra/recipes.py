"""Recipes: the digest of what was asked for, which is where an object lies."""

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, JsonValue

from alignment.types import SCHEMA_VERSION, Artifact, Kind, digest_of

_RECIPE = re.compile(r"[A-Za-z0-9_-]+")


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


def folder_of(kind: Kind, recipe: str) -> str:
    """Relative to the store."""
    if not _RECIPE.fullmatch(recipe):
        raise ValueError(f"{recipe!r} is no recipe")
    return f"objects/{kind}/{recipe}"


def is_key(key: str) -> bool:
    """Whether it is a ``kind/recipe``: records and pointers may be someone else's."""
    kind, _, recipe = key.partition("/")
    return kind in get_args(Kind) and _RECIPE.fullmatch(recipe) is not None
