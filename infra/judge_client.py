"""A language judge, asked over HTTP in the form of OpenAI's chat completions."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx

from alignment.errors import UserError
from alignment.labeling import JudgeFailure, LanguageJudge, Verdict, verdict_in
from infra.redaction import redacted

AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})
"""Statuses that another try may mend."""
FIRST_WAIT = 0.5


class Comparison(NamedTuple):
    """Two answers to one prompt, by what the judge is shown."""

    prompt: str
    first: str
    second: str


class Judged(NamedTuple):
    """Both verdicts of a comparison, as shown and with the answers exchanged."""

    forward: Verdict | JudgeFailure
    backward: Verdict | JudgeFailure


class Answers(NamedTuple):
    judged: list[Judged]
    """In the order of the comparisons."""
    calls: int
    """Requests sent, failed and repeated ones included."""


def compare(
    judge: LanguageJudge, comparisons: Sequence[Comparison], wait: Callable[[float], None] = time.sleep
) -> Answers:
    """Each comparison in both orders. A failure stands where a verdict is missing; nothing is raised for it.

    Raises UserError where the key's variable is not set, or the server refuses the key or the model.
    """
    calls: list[None] = []
    shown = [order for c in comparisons for order in ((c.prompt, c.first, c.second), (c.prompt, c.second, c.first))]
    with (
        httpx.Client(timeout=judge.timeout, headers=_headers(judge)) as client,
        ThreadPoolExecutor(judge.concurrency, "judge") as pool,
    ):

        def one(texts: tuple[str, str, str]) -> Verdict | JudgeFailure:
            return _verdict(client, judge, judge.asked(*texts), calls, wait)

        verdicts = list(pool.map(one, shown))
    judged = [Judged(a, b) for a, b in zip(verdicts[0::2], verdicts[1::2], strict=True)]
    return Answers(judged, len(calls))


def _headers(judge: LanguageJudge) -> dict[str, str]:
    if judge.key is None:
        return {}
    key = os.environ.get(judge.key)
    if not key:
        raise UserError(f"label.key names {judge.key}, which is not set: put the judge's key into the environment")
    return {"Authorization": f"Bearer {key}"}


def _verdict(
    client: httpx.Client, judge: LanguageJudge, message: str, calls: list[None], wait: Callable[[float], None]
) -> Verdict | JudgeFailure:
    body = {"model": judge.model, "messages": [{"role": "user", "content": message}], "temperature": 0}
    failure: JudgeFailure | None = None
    for attempt in range(judge.retries + 1):
        if attempt:
            wait(FIRST_WAIT * 2 ** (attempt - 1))
        calls.append(None)
        answer = _asked(client, judge, body)
        if isinstance(answer, str):
            return verdict_in(answer)
        failure = answer
    assert failure is not None
    return failure


def _asked(client: httpx.Client, judge: LanguageJudge, body: dict[str, object]) -> str | JudgeFailure:
    """The completion's text. UserError for what no other try mends."""
    url = f"{judge.url.rstrip('/')}/chat/completions"
    try:
        response = client.post(url, json=body)
    except httpx.TimeoutException:
        return JudgeFailure("timeout", f"no answer within {judge.timeout:g} s")
    except httpx.TransportError as error:
        return JudgeFailure("unreachable", redacted(f"{type(error).__name__}: {error}"))
    if response.status_code in AGAIN:
        return JudgeFailure("status", f"status {response.status_code}")
    if response.status_code != 200:
        raise UserError(
            f"judge {url} answered {response.status_code}: {' '.join(redacted(response.text).split())[:120]!r}. Check "
            "label.url, label.model and the key"
        )
    try:
        text = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return JudgeFailure("unreadable", f"{type(error).__name__}: {error}")
    # what is said of an unclear verdict is stored, and a server may echo what it was sent
    return redacted(text) if isinstance(text, str) else JudgeFailure("unreadable", "the answer's content is no text")
