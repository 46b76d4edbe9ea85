"""Cluster manifests: held to the schemas of the systems that read them, and the Slurm script run with stand-ins."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from programs import find_program, need
from pydantic import BaseModel, ConfigDict, Field

from alignment.config import RunConfig
from tasks.recipe import load_config

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "infra" / "cluster"
RECIPES = ROOT / "flows" / "recipes"


def manifest(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


class Strict(BaseModel):
    """The fields of KubeRay's v1 API that our manifests may use, as its Go types name them."""

    model_config = ConfigDict(extra="forbid")


class Auth(Strict):
    mode: Literal["token"]


class HeadGroup(Strict):
    rayStartParams: dict[str, str]
    template: dict[str, Any]


class WorkerGroup(HeadGroup):
    groupName: str
    replicas: int = Field(ge=0)
    minReplicas: int = Field(ge=0)
    maxReplicas: int = Field(ge=0)


class ClusterSpec(Strict):
    rayVersion: str
    authOptions: Auth
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = []


class JobSpec(Strict):
    entrypoint: str
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    backoffLimit: int
    rayClusterSpec: ClusterSpec


def ray_cluster() -> ClusterSpec:
    return ClusterSpec.model_validate(manifest("raycluster.yaml")["spec"])


def ray_job() -> JobSpec:
    return JobSpec.model_validate(manifest("rayjob.yaml")["spec"])


def pods() -> Iterator[dict[str, Any]]:
    for spec in (ray_cluster(), ray_job().rayClusterSpec):
        for group in (spec.headGroupSpec, *spec.workerGroupSpecs):
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group.template}


@pytest.mark.parametrize(("name", "kind"), [("raycluster.yaml", "RayCluster"), ("rayjob.yaml", "RayJob")])
def test_kuberay_manifests_name_their_api_and_the_pinned_ray(name, kind):
    from importlib.metadata import version

    found = manifest(name)
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", kind)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,45}[a-z0-9])?", found["metadata"]["name"])
    spec = found["spec"].get("rayClusterSpec", found["spec"])
    assert spec["rayVersion"] == version("ray")


def test_pod_templates_are_valid_kubernetes():
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    for pod in pods():
        validate(pod, "1.33", strict=True)


def test_pods_run_without_root_and_take_their_secrets_from_the_cluster():
    for pod in pods():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in pod["spec"]["containers"]:
            assert "env" not in container
            assert container["envFrom"] == [{"secretRef": {"name": "ratchet-store"}}]
            assert not container["image"].endswith(":latest")


def test_the_job_runs_a_recipe_that_exists_with_fields_that_exist():
    program, command, recipe, *overrides = shlex.split(ray_job().entrypoint)
    assert (program, command) == ("ratchet", "run")
    config = load_config(
        recipe, [*overrides, "--policy", "m", "--prompts.path", "p", "--reward.model", "r"], shipped=RECIPES
    )
    assert config.engine.gpu
    assert config.trainer.gpu


def test_ray_up_accepts_the_cluster_file():
    util = pytest.importorskip("ray.autoscaler._private.util")
    prepared = util.prepare_config(manifest("ray-up.yaml"))
    util.validate_config(prepared)
    assert prepared["provider"]["worker_ips"] == ["192.0.2.11"]
    assert prepared["docker"]["image"] == "ratchet:cuda"


def test_the_prefect_file_deploys_the_flow_with_a_config_that_is_valid():
    project = yaml.safe_load((ROOT / "infra" / "prefect.yaml").read_text())
    (deployment,) = project["deployments"]
    config = RunConfig.model_validate(deployment["parameters"]["config"])
    assert config.run == deployment["name"]
    assert deployment["entrypoint"] == "flows/align.py:align"
    assert "def align(config: RunConfig)" in (ROOT / "flows" / "align.py").read_text()


def test_the_slurm_script_has_no_shell_fault():
    need("shellcheck")
    checked = subprocess.run([find_program("shellcheck"), CLUSTER / "ratchet.sbatch"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


STANDIN = """#!/bin/bash
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
scontrol*hostnames*) printf 'alpha\\nbeta\\n' ;;
srun*) shift 4; exec "$@" ;;
*--block*) exec sleep 60 ;;
*health-check*) grep -q "^ray start.* --head" "$CALLS" ;;
ratchet*) echo "address $RAY_ADDRESS token ${#RAY_AUTH_TOKEN}" >>"$CALLS"; eval "$RUN" ;;
esac
"""


@pytest.fixture
def slurm(tmp_path: Path):
    """The script on an allocation of two nodes, where every program only notes how it was called."""
    for name in ("scontrol", "srun", "ray", "ratchet"):
        (tmp_path / name).write_text(STANDIN)
        (tmp_path / name).chmod(0o755)

    def start(run: str) -> subprocess.Popen[str]:
        env = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "RUN": run,
            "SLURM_JOB_ID": "20007",
            "SLURM_JOB_NODELIST": "alpha,beta",
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_GPUS_ON_NODE": "1",
        }
        words = ["bash", CLUSTER / "ratchet.sbatch", "rso", "--rounds", "5"]
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start, tmp_path / "calls"


def test_on_slurm_the_run_meets_a_cluster_of_all_nodes_and_its_exit_status_is_the_jobs(slurm):
    """Port 20000 + 20007 % 20000 = 20007; a token of 32 bytes is 64 hex digits."""
    start, calls = slurm
    script = start('until [ "$(grep -c "^ray start" "$CALLS")" = 2 ]; do sleep 0.1; done; exit 2')
    assert script.wait(timeout=30) == 2
    lines = calls.read_text().splitlines()
    ray = [line for line in lines if line.startswith("ray start")]
    common = "ray start --block --num-cpus=16 --num-gpus=1"
    assert ray[0] == f"{common} --head --port=20007 --include-dashboard=false"
    assert ray[1:] == [f"{common} --address=alpha:20007"]
    assert [re.search(r"--nodelist=(\w+)", line)[1] for line in lines if line.startswith("srun")] == ["alpha", "beta"]
    assert {"ratchet run rso --rounds 5", "address alpha:20007 token 64"} <= set(lines)


def test_a_slurm_job_that_is_preempted_is_put_back_in_the_queue(slurm):
    start, calls = slurm
    script = start("exec sleep 60")
    while "ratchet run" not in (calls.read_text() if calls.exists() else ""):
        assert script.poll() is None
    script.terminate()
    assert script.wait(timeout=30) == 143
    assert "scontrol requeue 20007" in calls.read_text().splitlines()
