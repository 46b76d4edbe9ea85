import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "vllm", "ray", "prefect", "deepspeed", "peft", "fsspec", "s3fs", "pyarrow", "scipy"}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "alignment").rglob("*.py")
    if path.name != "__init__.py"
)


def imported_by(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_module_of_the_method_imports_without_an_engine():
    """One process imports them all, so that a config can be read, shown and refused where no engine is installed."""
    seen = imported_by("\n".join(f"import {m}" for m in MODULES))
    assert not seen & HEAVY, f"imported with alignment: {sorted(seen & HEAVY)}"


@pytest.mark.parametrize(
    "statement",
    [
        "from alignment.losses import DPO; DPO(beta=0.2)",
        "from alignment.selection import RSO\nimport numpy as np\nRSO().accept([1.0, 2.0], np.random.default_rng(0))",
        "from alignment.config import RunConfig\nRunConfig.model_json_schema()",
    ],
)
def test_a_strategy_can_be_built_and_used_without_torch(statement):
    assert not imported_by(statement) & HEAVY
