"""The HTML templates of every page: what they are given is escaped, and what is missing is an error."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2


def render(template: str, filters: dict[str, Callable[..., Any]], **values: Any) -> str:
    """The page ``template`` of the templates folder, with ``filters`` by name."""
    page = _environment().overlay()
    page.filters = page.filters | filters
    return page.get_template(template).render(**values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
