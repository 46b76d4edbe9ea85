"""Many prompts at once, none waiting for another: what is ready is batched, drawing and scoring go on side by side.

How one prompt's completions grow is written as a generator that yields what it needs next and is sent the answer. A
prompt goes on as soon as its own rewards are in. Which needs happen to share a batch depends on timing; what is drawn
does not, since every request carries a seed of its own.
"""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

from alignment.sampling.requests import Generate, Request, Score
from alignment.types import Candidate, Prompt

REWARD = "reward"
"""The reward model that samplers follow, by its name among the scores."""


class Draw(NamedTuple):
    """Answered by the request's candidates: n, or none where the prompt does not fit the context."""

    request: Request


class Rate(NamedTuple):
    """Answered by one reward per text; None is a failed score."""

    prompt: Prompt
    texts: tuple[str, ...]


T = TypeVar("T")
Growth = Generator[Draw | Rate, Any, T]


def draw(request: Request) -> Growth[list[Candidate]]:
    return (yield Draw(request))


def rate(prompt: Prompt, texts: Sequence[str]) -> Growth[list[float | None]]:
    return (yield Rate(prompt, tuple(texts)))


def interleave(growths: Sequence[Growth[T]], generate: Generate, score: Score) -> list[T]:
    """What each growth returns, in their order.

    At most one batch is drawn and one scored at a time. A batch of draws holds at most half of the prompts, so that
    the policy has the other half to work on while the first is scored.
    """
    done: dict[int, T] = {}
    draws: deque[tuple[int, Draw]] = deque()
    rates: deque[tuple[int, Rate]] = deque()

    def advance(at: int, answer: Any) -> None:
        try:
            need = growths[at].send(answer)
        except StopIteration as end:
            done[at] = end.value
        else:
            draws.append((at, need)) if isinstance(need, Draw) else rates.append((at, need))

    for at in range(len(growths)):
        advance(at, None)
    half = -(-len(growths) // 2)
    running: dict[Future[list[Any]], tuple[str, list[int]]] = {}
    with ThreadPoolExecutor(2, "interleaved") as threads:
        while draws or rates or running:
            busy = {kind for kind, _ in running.values()}
            if draws and "draw" not in busy:
                drawn = _taken(draws, half)
                running[threads.submit(_draw, generate, [d for _, d in drawn])] = "draw", [at for at, _ in drawn]
            if rates and "rate" not in busy:
                rated = _taken(rates, len(rates))
                running[threads.submit(_rate, score, [r for _, r in rated])] = "rate", [at for at, _ in rated]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                _, waiting = running.pop(future)
                for at, answer in zip(waiting, future.result(), strict=True):
                    advance(at, answer)
    return [done[at] for at in range(len(growths))]


def _taken(queue: "deque[T]", most: int) -> list[T]:
    return [queue.popleft() for _ in range(min(most, len(queue)))]


def _draw(generate: Generate, draws: Sequence[Draw]) -> list[list[Candidate]]:
    drawn = generate([d.request for d in draws])
    for d, candidates in zip(draws, drawn, strict=True):
        if candidates and len(candidates) != d.request.n:
            raise ValueError(
                f"prompt {d.request.prompt.id}: {len(candidates)} completions for a request of {d.request.n}"
            )
    return drawn


def _rate(score: Score, rates: Sequence[Rate]) -> list[list[float | None]]:
    scored = score([r.prompt for r in rates], [r.texts for r in rates])
    for row in scored:
        if REWARD not in row:
            raise ValueError(f"no reward model is named {REWARD!r}, there are {', '.join(row) or 'none'}")
    return [row[REWARD] for row in scored]
