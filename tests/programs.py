"""Servers that tests start: found on this machine, put on free loopback ports, waited for, and ended."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def need(*programs: str) -> None:
    """Skip the test, saying which, when a program is not installed."""
    if missing := [p for p in programs if find_program(p) is None]:
        pytest.skip(f"{', '.join(missing)} not installed (make services, make test)")


def find_program(name: str) -> str | None:
    """A program of the running Python's own environment, else of the machine."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(ready: Callable[[], bool], what: str, log: Path, seconds: float = 300) -> None:
    """Poll ten times a second; fails with the end of the log rather than with a bare timeout."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not ready after {seconds:.0f} s\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether an HTTP server says anything but a server error there."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


@contextmanager
def running(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a process group of its own, ended with all its children: SIGTERM, then SIGKILL after 10 s."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
