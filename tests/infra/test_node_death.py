"""A machine that goes down takes its processes with it; the work goes on where there is room."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

# A process of its own: the nodes of this cluster must not be those of another test.
SCRIPT = """
import json, os, threading, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
import ray
from ray.cluster_utils import Cluster
from alignment.execution import Engine
from infra import ray_pool
from infra.replicas import Replicas

class Squarer:
    def node(self): return ray.get_runtime_context().get_node_id()
    def square(self, number):
        time.sleep(1)
        return number * number

node = dict(num_cpus=2, object_store_memory=100 * 2**20)
cluster = Cluster(initialize_head=True, head_node_args=dict(node, include_dashboard=False))
other = cluster.add_node(**node)
ray_pool.open_ray(Engine(address=cluster.address))
start = lambda: ray.remote(Squarer).options(num_cpus=1, scheduling_strategy="SPREAD").remote()
ready = lambda actor: ray_pool.wait([actor.node.remote()], timeout=60, what="a squarer")
squarers = Replicas(2, start, ready, timeout=60)
squarers.make_ready()
nodes = lambda: [ray.get(actor.node.remote()) for actor in squarers._alive]
before = nodes()
answers = {}
def ask(number): answers[number] = squarers.call("square", number, what=f"square of {number}")
threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
time.sleep(0.5)
cluster.remove_node(other, allow_graceful=False)
for thread in threads: thread.join()
squarers.make_ready()
print(json.dumps(dict(before=before, after=nodes(), dead=other.node_id, answers=sorted(answers.values()))))
"""


def test_the_work_of_a_killed_node_is_done_on_another(tmp_path: Path):
    root = Path(__file__).resolve().parents[2]
    script = tmp_path / "two_nodes.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))  # Ray may print after it
    assert told["dead"] in told["before"]
    assert len(set(told["before"])) == 2
    assert told["dead"] not in told["after"]
    assert told["answers"] == [n * n for n in range(8)]
