"""Deaths and deadlines, with processes that cost nothing to start."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import UserError
from alignment.execution import Engine
from infra import ray_pool
from infra.replicas import Replicas

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


class Squarer:
    """Squares numbers; ends its process at 13 and is slow at 100."""

    def pid(self) -> int:
        return os.getpid()

    def square(self, number: int) -> int:
        if number == 13:
            os._exit(1)
        time.sleep(60 if number == 100 else 0)
        return number * number

    def hang_once(self, seen: str, number: int) -> int:
        if not os.path.exists(seen):
            Path(seen).touch()
            time.sleep(600)
        return number * number

    def refuse(self) -> None:
        raise UserError("mend this")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> None:
    # as an orchestrator's task would: from a thread that ends
    opening = threading.Thread(target=ray_pool.open_ray, args=(Engine(),))
    opening.start()
    opening.join()


@pytest.fixture
def squarers() -> Iterator[Replicas]:
    replicas = opened(2)
    yield replicas
    replicas.close()


def squarer(cpus: float = 0) -> Any:
    import ray

    here = {"env_vars": {"PYTHONPATH": f"{ray_pool.PROJECT}{os.pathsep}{Path(__file__).parent}"}}
    return ray.remote(Squarer).options(num_cpus=cpus, runtime_env=here).remote()


def opened(count: int, *, timeout: float = 60, patience: float = 60, cpus: float = 0) -> Replicas:
    def ready(actor: Any) -> None:
        ray_pool.wait([actor.pid.remote()], timeout=patience, what="a squarer")

    replicas = Replicas(count, partial(squarer, cpus), ready, timeout=timeout)
    replicas.make_ready()
    return replicas


def test_calls_from_many_threads_are_each_answered(squarers):
    with ThreadPoolExecutor(4) as threads:
        answers = threads.map(lambda n: squarers.call("square", n, what="square"), range(12))
    assert list(answers) == [n * n for n in range(12)]


def test_processes_are_waited_for_side_by_side():
    both = threading.Barrier(2)

    def ready(actor: Any) -> None:
        ray_pool.wait([actor.pid.remote()], timeout=60, what="a squarer")
        both.wait(timeout=30)

    replicas = Replicas(2, squarer, ready, timeout=60)
    replicas.make_ready()
    assert sorted(replicas.call("square", n, what="square") for n in (2, 3)) == [4, 9]
    replicas.close()


def test_a_poison_call_is_set_aside_after_three_deaths(squarers):
    with pytest.raises(UserError, match=r"sampling of prompt abc: ended the process that worked on it 3 times"):
        squarers.call("square", 13, what="sampling of prompt abc")
    assert squarers.call("square", 4, what="square") == 16


def test_a_workers_own_complaint_arrives_as_it_was_made(squarers):
    with pytest.raises(UserError, match=r"^mend this$"):
        squarers.call("refuse", what="refusal")
    assert squarers.call("square", 5, what="square") == 25


def test_a_deadline_says_what_is_free_and_who_holds_the_rest():
    slow = opened(1, timeout=1, cpus=1)
    with pytest.raises(ray_pool.Overdue) as late:
        slow.call("square", 100, what="square of 100")
    assert "square of 100: 1 of 1 not there after 1 s. Free: CPU " in str(late.value)
    assert "; held by " in str(late.value)
    assert "Squarer (pid " in str(late.value)
    slow.close()


def test_a_process_that_hangs_is_replaced_and_its_call_answered_by_the_next(tmp_path, caplog):
    hanging = opened(1, timeout=3)
    (before,) = hanging.pids()
    assert hanging.call("hang_once", str(tmp_path / "seen"), 6, what="square of 6") == 36
    assert hanging.pids() != [before]
    assert "issued again: square of 6: 1 of 1 not there after 3 s. Free: CPU " in caplog.text
    hanging.close()


def test_more_than_the_cluster_has_is_a_deadline_with_a_diagnosis():
    with pytest.raises(UserError, match=r"1 processes wait to be placed. Ask for less"):
        opened(1, patience=1, cpus=10_000)


def test_no_cluster_at_the_address_is_said_in_one_line():
    with pytest.raises(UserError, match=r"engine.address = '127.0.0.1:1': no Ray cluster answers there .*refused"):
        ray_pool._connect("127.0.0.1:1")


DRIVER = """
import os, time, ray
from alignment.execution import Engine
from infra import ray_pool
ray_pool.open_ray(Engine())
@ray.remote
class Busy:
    def pid(self): return os.getpid()
    def spin(self):
        while True: pass
busy = Busy.remote()
print("pid", ray.get(busy.pid.remote()), flush=True)
busy.spin.remote()
time.sleep(120)
"""


def test_a_killed_driver_takes_its_processes_with_it():
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert driver.stdout
    pid = int(next(line for line in driver.stdout if line.startswith("pid ")).split()[1])
    driver.kill()
    driver.wait()
    end = time.monotonic() + 30
    while time.monotonic() < end and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.2)
    assert not os.path.exists(f"/proc/{pid}")
