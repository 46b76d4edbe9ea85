"""The Prefect server that runs report to. What a run makes does not depend on it: only the report does."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from alignment.errors import UserError
from infra.redaction import redacted


def server_address() -> str | None:
    """As a person names it, without credentials; None where none is named, so that a run brings its own."""
    if not (url := PREFECT_API_URL.value()):
        return None
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"


def problem_with_server() -> str | None:
    """Why the named server does not answer; None where it does, or where none is named."""
    if server_address() is None:
        return None
    try:
        with get_client(sync_client=True) as client:
            problem = client.api_healthcheck()
    except Exception as error:  # it may also fail as the client opens
        problem = error
    return redacted(" ".join(str(problem).split()))[:200] if problem else None


@contextmanager
def answering() -> Iterator[None]:
    """A run within must have the server that it is told to report to.

    UserError where that does not answer, before anything starts; and where it has stopped to, when the run fails.
    """
    if problem := problem_with_server():
        raise UserError(
            f"{server_address()}: no Prefect server answers there ({problem}). Start it, or unset PREFECT_API_URL to "
            "run without one"
        )
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if problem := problem_with_server():
            raise UserError(
                f"{server_address()}: the Prefect server has stopped answering ({problem}), and the run failed "
                f"({type(error).__name__}). What is made is in the store: start it, or unset "
                "PREFECT_API_URL, and the same command goes on"
            ) from error
        raise
