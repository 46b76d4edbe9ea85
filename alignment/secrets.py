"""Secrets stay out of recipes: what looks like one is refused where a recipe is read, and told by its place alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@'\"]+@")
_BUCKET = re.compile(r"(s3://)[^/\s:@'\"]+:[^\s@'\"]*@")
"""A secret key may hold a slash, and no bucket's name a colon."""
_SIGNED = re.compile(
    r"([?&](?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|sig|(?:access_|auth_)?token|(?:api_?)?key|"
    r"password|secret)=)[^&\s'\"]+",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?:^|[_-])(?:api_?key|access_?key|secret|token|password|passwd|credentials?)$", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """The text with ``user:password@`` and signed parameters taken out of the addresses in it."""
    return _SIGNED.sub(r"\1***", _USER.sub(r"\1***@", _BUCKET.sub(r"\1***@", text)))


def names_secret(field: str) -> bool:
    """Whether a field's name says that its value is a secret, such as ``api_key``."""
    return field == "key" or _NAMED.search(field) is not None


def secrets_in(value: Any, at: str = "") -> Iterator[str]:
    """Dotted paths of what a recipe must not hold: addresses with credentials, and fields named for secrets."""
    if isinstance(value, Mapping):
        for key, inner in cast("Mapping[Any, Any]", value).items():
            path = f"{at}.{key}" if at else str(key)
            if isinstance(inner, str) and inner and _NAMED.search(str(key)):
                yield path
            else:
                yield from secrets_in(inner, path)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(cast("Sequence[Any]", value)):
            yield from secrets_in(inner, f"{at}[{number}]")
    elif isinstance(value, str) and without_credentials(value) != value:
        yield at
