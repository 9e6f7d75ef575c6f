from __future__ import annotations

import pkgutil
import subprocess
import sys
from types import ModuleType

import tailrace as tr


def test_public_names_are_those_of_all() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(tr.__path__)}
    public = {name for name in vars(tr) if not name.startswith("_")} - (submodules - set(tr.__all__))
    assert public == set(tr.__all__)


def test_all_is_sorted_and_complete_for_metrics_and_drift() -> None:
    for module in (tr.metrics, tr.drift):
        classes = {n for n, v in vars(module).items() if not n.startswith("_") and not isinstance(v, ModuleType)}
        assert classes == set(module.__all__)


def test_importing_the_api_imports_no_heavy_library() -> None:
    heavy = {"numpy", "numba", "torch", "feast", "mlflow", "confluent_kafka", "redis", "pydantic", "pandas", "sklearn"}
    code = f"import sys, tailrace; print(sorted({heavy!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
