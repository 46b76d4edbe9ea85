"""What is told or kept holds no secret of this process's environment, and no credentials of an address."""

import os
import re
from urllib.parse import unquote, urlsplit

from alignment.secrets import without_credentials

_NAMED = re.compile(
    r"(?:^|_)(?:SECRET|TOKEN|PASSWORD|PASSWD|PASS|CREDENTIALS?|KEY|APIKEY|ACCESSKEY)(?:_|$)|_KEY_ID$", re.IGNORECASE
)
SHORTEST = 6
"""Characters of a value that is taken for a secret: shorter ones stand in ordinary words."""


def redacted(text: str) -> str:
    """The text without the values of environment variables whose names say that they are secrets, and without
    credentials in addresses."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    return without_credentials(text)


def redact(error: BaseException) -> None:
    """Take the same out of what an error and its causes say, where they stand: whoever logs them logs no secret."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.args = tuple(redacted(a) if isinstance(a, str) else a for a in one.args)
        for name, value in list(vars(one).items()):
            if isinstance(value, str):
                setattr(one, name, redacted(value))
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _secrets() -> list[str]:
    """Longest first, so that one that holds another goes whole."""
    named = {value for name, value in os.environ.items() if _NAMED.search(name)}
    inside = {part for value in os.environ.values() if "://" in value for part in _credentials(value)}
    return sorted((s for s in named | inside if len(s) >= SHORTEST), key=len, reverse=True)


def _credentials(address: str) -> set[str]:
    try:
        parts = urlsplit(address)
        found = {part for part in (parts.username, parts.password) if part}
    except ValueError:
        return set()
    return found | {unquote(part) for part in found}
