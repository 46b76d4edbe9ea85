"""Recipes: TOML files with dotted overrides, read into a ``RunConfig`` with errors a person can act on."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.secrets import names_secret, without_credentials
from infra import artifacts


def load_config(recipe: str, overrides: Sequence[str], *, shipped: Path) -> RunConfig:
    """The configuration a recipe and its overrides describe; the run is named after the recipe unless it says so.

    ``recipe`` is a path to a TOML file, or the name of one in ``shipped``. Raises UserError with the dotted path of
    whatever is wrong.
    """
    path = find_recipe(recipe, shipped)
    return parse_config(path.read_bytes(), overrides, where=str(path), run=path.stem)


def find_recipe(recipe: str, shipped: Path) -> Path:
    if recipe.endswith(".toml") or "/" in recipe:
        if not Path(recipe).is_file():
            raise UserError(f"{recipe}: no such recipe file")
        return Path(recipe)
    names = sorted(p.stem for p in shipped.glob("*.toml"))
    if recipe not in names:
        near = difflib.get_close_matches(recipe, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(
            f"{recipe}: no such recipe; {hint}recipes are {', '.join(names)}, or give a path to a .toml file"
        )
    return shipped / f"{recipe}.toml"


def parse_config(text: bytes, overrides: Sequence[str], *, where: str, run: str) -> RunConfig:
    try:
        values = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: not a TOML file: {error}") from None
    for path, value in _assignments(overrides):
        _assign(values, path, value)
    values.setdefault("run", run)
    _default_types(RunConfig, values)
    return validate_config(values, where=where)


def validate_config(values: Mapping[str, Any], *, where: str) -> RunConfig:
    """``RunConfig`` of plain values; UserError names every bad field by its dotted path."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_explain(e) for e in error.errors())) from None


def fork_config(store: str, run: str, new: str, overrides: Sequence[str]) -> RunConfig:
    """Another run's configuration under a new name, in the same store, with overrides."""
    values: dict[str, Any] = {**artifacts.read_config(store, run), "store": store, "run": new}
    for path, value in _assignments(overrides):
        _assign(values, path, value)
    _default_types(RunConfig, values)
    return validate_config(values, where=f"fork of {run}")


def fields_help() -> str:
    """Every field of a recipe by its dotted path, with its default and what its docstring says first."""
    return "\n".join(_field_lines(RunConfig, ""))


def _field_lines(model: type[BaseModel], at: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kinds = [m for m in _models_in(field.annotation) if m.model_fields]
        default = field.default
        if len(kinds) == 1 and (isinstance(default, BaseModel) or _tag(kinds[0]) is None):
            yield from _field_lines(kinds[0], f"{at}{name}.")
        elif kinds:
            tags = " | ".join(filter(None, map(_tag, kinds))) or "table"
            chosen = _tag(type(default)) if isinstance(default, BaseModel) else None
            yield f"  --{at}{name}.type  {tags}" + (f"  (default {chosen})" if chosen else "")
            for kind in kinds:
                about = (kind.__doc__ or "").strip().split("\n")[0]
                inner = ", ".join(n for n in kind.model_fields if n != "type")
                yield f"      {_tag(kind) or name}: {inner}. {about}"
        elif name != "type":
            shown = "required" if field.is_required() else f"default {default}"
            yield f"  --{at}{name}  {shown}"


def _assignments(overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """``--a.b value`` and ``--a.b=value``, values read as TOML where they are TOML and as text where not."""
    words = iter(overrides)
    for word in words:
        if not word.startswith("--") or len(word) == 2:
            raise UserError(f"{word.partition('=')[0]}: not an override; write --train.loss.beta 0.05")
        path, equals, value = word[2:].partition("=")
        if not equals:
            value = next(words, None)
            if value is None:
                raise UserError(f"--{path}: needs a value")
        yield path.replace("-", "_"), _toml_value(value)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UserError(f"--{path}: {parent!r} is already {without_credentials(repr(inner))}, not a table")
        values = inner
    values[last] = value


def _default_types(model: type[BaseModel], values: dict[str, Any]) -> None:
    """``--train.loss.beta 0.05`` alone means the default loss with another beta: fill in the default's ``type``."""
    for name, field in model.model_fields.items():
        inner, default = values.get(name), field.default
        if isinstance(inner, dict) and isinstance(default, BaseModel):
            if "type" in type(default).model_fields:
                inner.setdefault("type", default.type)  # pyright: ignore[reportAttributeAccessIssue]
            _default_types(type(default), inner)


def _explain(error: ErrorDetails) -> str:
    path = tuple(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        names = _field_names(path[:-1])
        near = difflib.get_close_matches(path[-1], names, n=1)
        way_out = f"did you mean {near[0]!r}?" if near else f"valid names: {', '.join(sorted(names))}"
        return f"unknown key {_dotted(path)!r}; {way_out}"
    untold = error["type"] == "missing" or any(map(names_secret, path))
    given = "" if untold else f" (got {without_credentials(repr(error['input']))})"
    message = error["msg"].removeprefix("Value error, ")
    return f"{_dotted(path)}: {message}{given}" if path and error["type"] != "value_error" else message


def _dotted(path: Sequence[str]) -> str:
    """The path as a recipe writes it: the union tags that pydantic puts in between are left out."""
    kept: list[str] = []
    models: list[type[BaseModel]] = [RunConfig]
    for part in path:
        if any(part in m.model_fields for m in models) or not models:
            kept.append(part)
            models = [n for m in models if part in m.model_fields for n in _models_in(m.model_fields[part].annotation)]
        elif part.isdigit() or not any(_tag(m) == part for m in models):
            kept.append(part)
        else:
            models = [m for m in models if _tag(m) == part]
    return ".".join(kept)


def _field_names(path: Sequence[str]) -> list[str]:
    models: list[type[BaseModel]] = [RunConfig]
    for part in path:
        named = [n for m in models if part in m.model_fields for n in _models_in(m.model_fields[part].annotation)]
        models = named or [m for m in models if _tag(m) == part] or models
    return [name for m in models for name in m.model_fields]


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    return field.default if field else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [m for a in get_args(annotation) for m in _models_in(a)]
