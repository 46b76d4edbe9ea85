"""Ray for one run: found or started, what its processes are given, and waits that end."""

import ctypes
import gc
import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.errors import UserError
from alignment.execution import Engine
from alignment.secrets import without_credentials
from infra.redaction import redacted

if TYPE_CHECKING:
    from ray import ObjectRef

PROJECT = Path(__file__).resolve().parents[1]
OBJECT_STORE_BYTES = 256 * 2**20
"""Token ids and numbers pass through it, never weights."""
KNOCK_SECONDS = 10
STARTS = 3
"""Ray gives its own processes 30 s, which a busy machine can exceed."""
CLAIMS_PER_CORE = 4
"""A cluster of our own declares this many CPUs per core. Its processes take turns more than they collide, and one
sampler, one model process and the training workers must fit beside each other on two cores."""


class Overdue(UserError):
    """A wait that took longer than it may."""


_opening = threading.Lock()
_own = False


def open_ray(engine: Engine) -> None:
    """Connect this process to Ray, once: to ``engine.address``, to the cluster whose job this process is, or to a
    cluster of its own, which ends with this process, however that ends.

    Raises UserError when no cluster answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's next default; unset, it warns
    import ray

    with _opening:
        if ray.is_initialized():
            return
        address = engine.address or os.environ.get("RAY_ADDRESS")
        if address:
            _connect(address)
        else:
            _start_own()


def own_cluster() -> bool:
    """Whether this process started the Ray it uses, so that its processes need make room for nobody else."""
    return _own


def cpus_for(threads: int) -> int:
    """CPUs to ask Ray for: the threads in a shared cluster, one nominal CPU in a cluster of our own."""
    return 1 if _own else threads


def gpus_for(engine: Engine, whole: int, share: float) -> float:
    """GPUs to ask Ray for: ``whole``, or a ``share`` of one where samplers and reward models must divide them."""
    import ray

    if not engine.gpu:
        return 0
    enough = ray.cluster_resources().get("GPU", 0) > engine.replicas * engine.tensor_parallel
    return whole if enough or engine.tensor_parallel > 1 else share


def worker_env(*, threads: int, alone: bool = False) -> dict[str, str]:
    """Environment of every process that computes; for ``runtime_env={"env_vars": ...}``.

    Two settings decide the speed of small models on a CPU. glibc's default allocator returns large blocks to the
    kernel at once, where training then spends most of its time: the MALLOC thresholds were worth a factor of five.
    And OpenMP threads that spin at barriers wait for neighbours that are not running when cores are shared: passive
    waiting was worth a factor of ten in sampling on a busy machine. A process that has its cores ``alone`` spins, for a
    few milliseconds at most: steps of training took 172 ms on idle cores, where they took 326 without spinning.
    """
    names = ("RATCHET_CACHE", "RATCHET_CACHE_LIMIT", "RATCHET_DEBUG")
    passed = {name: os.environ[name] for name in names if name in os.environ}
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))),
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
        "OMP_NUM_THREADS": str(threads),
        **({"GOMP_SPINCOUNT": "100000"} if alone else {"OMP_WAIT_POLICY": "PASSIVE"}),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",  # engines open folders of the store; what a hub holds was adopted before
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        **passed,
    }


def give_back_memory() -> None:
    """Return what is freed to the system, for a process that now waits: ``worker_env`` makes the allocator keep it."""
    gc.collect()  # models and optimizers refer to each other
    with suppress(OSError, AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)


def wait(refs: Sequence["ObjectRef[Any]"], *, timeout: float, what: str) -> list[Any]:
    """The values of ``refs``, in order. ``timeout`` is in seconds, for all of them together.

    Raises Overdue when time is up, naming what was asked for (``what``), what is free and who holds the rest; and
    the worker's own UserError when that is what went wrong there.
    """
    import ray
    from ray.exceptions import RayTaskError

    _, late = ray.wait(list(refs), num_returns=len(refs), timeout=timeout)
    if late:
        raise Overdue(f"{what}: {len(late)} of {len(refs)} not there after {timeout:g} s. {diagnosis()}")
    try:
        return ray.get(list(refs))
    except RayTaskError as failure:
        if isinstance(failure.cause, UserError):
            raise failure.cause from None
        raise


def diagnosis() -> str:
    """What the cluster has free and which processes hold the rest, with the way out."""
    import ray
    from ray._private import state  # the public listing of actors needs the dashboard, which we do not start

    total, free = ray.cluster_resources(), ray.available_resources()
    amounts = ", ".join(f"{name} {free.get(name, 0):g} of {total[name]:g}" for name in ("CPU", "GPU") if name in total)
    alive = [a for a in (state.actors() or {}).values() if a["State"] == "ALIVE"]
    holders = ", ".join(f"{a['ActorClassName']} (pid {a['Pid']}, job {a['JobID']})" for a in alive) or "nobody"
    waiting = sum(a["State"] in ("PENDING_CREATION", "DEPENDENCIES_UNREADY") for a in (state.actors() or {}).values())
    return (
        f"Free: {amounts or 'no CPU or GPU'}; held by {holders}; {waiting} processes wait to be placed. "
        "Ask for less (engine.replicas, engine.threads), end who holds it, or raise engine.timeout"
    )


def _connect(address: str) -> None:
    import ray

    try:
        _knock(address)
        ray.init(address=address, **_quiet())
    except (OSError, RuntimeError, ValueError) as e:
        reason = redacted(" ".join(str(e).split()))
        raise UserError(
            f"engine.address = {without_credentials(address)!r}: no Ray cluster answers there ({reason[:200]}). "
            "Start one with `ray start --head`, or leave the address out to run on this machine"
        ) from e


def _knock(address: str) -> None:
    """Raises OSError at once where nobody listens; Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


def _start_own() -> None:
    """Start Ray from a thread that never ends: Linux kills Ray's processes when the *thread* that started them does,
    and tasks of an orchestrator run in short-lived threads."""
    global _own
    for attempt in range(STARTS):
        failure = _kept_start()
        if failure is None:
            _own = True
            return
        if "timed out during startup" not in str(failure) or attempt == STARTS - 1:
            raise failure


def _kept_start() -> Exception | None:
    """One start in a thread of its own; one that fails ends, and takes what it had started with it."""
    failures: list[Exception] = []
    started = threading.Event()

    def keep() -> None:
        import ray

        try:
            ray.init(
                address="local",
                num_cpus=CLAIMS_PER_CORE * (os.cpu_count() or 1),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                **_quiet(),
            )
        except Exception as e:  # carried to the thread that asked
            failures.append(e)
        started.set()
        if not failures:
            threading.Event().wait()

    threading.Thread(target=keep, name="ray-keeper", daemon=True).start()
    started.wait()
    return failures[0] if failures else None


def _quiet() -> dict[str, Any]:
    import logging

    debug = "RATCHET_DEBUG" in os.environ
    return {"log_to_driver": debug, "logging_level": logging.INFO if debug else logging.ERROR}
