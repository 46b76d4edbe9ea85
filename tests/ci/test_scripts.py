"""The scripts behind make: they do nothing twice, hand pip's settings on, and say what they cannot do."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from programs import find_program, need

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("install", "services", "run")

NOTING = """#!/bin/bash
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in
"-m pip config get global.extra-index-url") echo "file://$PWD/there file:///not/there" ;;
"-m pip config get"*) exit 1 ;;
"pip install"*) echo "links=$UV_FIND_LINKS index=$UV_INDEX strategy=$UV_INDEX_STRATEGY" >>"$CALLS"; eval "$INSTALL" ;;
esac
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_no_shell_fault(script):
    need("shellcheck")
    checked = subprocess.run([find_program("shellcheck"), ROOT / ".ci" / script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's install script and pins over an environment whose programs only note how they were called."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    for name in ("python", "uv"):
        program = tmp_path / ".venv" / "bin" / name
        program.write_text(NOTING)
        program.chmod(0o755)
    return tmp_path


def install(project: Path, *extras: str, run: str = "true", **env: str) -> tuple[int, str, list[str]]:
    calls = project / "calls"
    calls.unlink(missing_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    done = subprocess.run(
        [project / ".ci" / "install", *extras],
        env={**kept, "CALLS": str(calls), "INSTALL": run, **env},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr, calls.read_text().splitlines() if calls.exists() else []


def test_an_install_is_done_once_for_each_extra_until_the_pins_change(project):
    assert install(project, "cpu", "dev")[2]
    assert install(project, "cpu", "dev") == (0, "", [])
    assert install(project, "dev") == (0, "", [])
    assert install(project, "bench")[2]
    assert install(project, "cpu", "dev", "bench") == (0, "", [])
    (project / "requirements" / "cpu.txt").write_text("numpy==1\n")
    assert install(project, "cpu")[2]


def test_pips_indexes_and_wheel_folders_are_handed_on_where_they_exist(project):
    _, _, calls = install(project, "cpu", PIP_FIND_LINKS=f"/not/there {project}/there")
    assert f"links={project}/there index=file://{project}/there strategy=unsafe-best-match" in calls


def test_torch_comes_from_its_cpu_index_when_no_wheel_folder_has_it(project):
    fails = '[[ "$*" == *torch-backend* ]] || { echo "no version of torch==2.13.0+cpu" >&2; exit 1; }'
    status, _, calls = install(project, "cpu", run=fails)
    assert status == 0
    assert [call for call in calls if call.startswith("uv")][-1].endswith("--torch-backend cpu")


def test_any_other_failure_is_shown_and_is_tried_again_next_time(project):
    status, said, _ = install(project, "cpu", run='echo "the index does not answer" >&2; exit 1')
    assert status == 1
    assert "the index does not answer" in said
    assert install(project, "cpu")[2]


def test_services_say_what_they_cannot_install_and_let_the_tests_skip(tmp_path):
    for name in ("dpkg-query", "id"):
        (tmp_path / name).write_text("#!/bin/bash\n[ $(basename $0) = id ] && echo 1000\nexit 0\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "apt-get").symlink_to("/bin/false")
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run([ROOT / ".ci" / "services"], env={"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0
    assert "not root; tests that need radosgw" in done.stdout


def test_the_stamp_covers_everything_that_decides_what_is_installed(project):
    install(project, "cpu")
    parts = [project / "pyproject.toml", *sorted((project / "requirements").glob("*.txt")), project / ".ci" / "install"]
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    assert (project / ".venv" / ".installed").read_text() == f"cpu {digest}\n"
