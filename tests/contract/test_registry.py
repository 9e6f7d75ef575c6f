"""The in-memory registry keeps the promises that tests/integration/test_registry.py holds MLflow to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.backends.memory import MemoryRegistry
from tailrace.backends.ports import DIGEST_TAG
from tailrace.errors import RegistryUnavailable


def registered(tmp_path: Path, *runs: str) -> MemoryRegistry:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    registry = MemoryRegistry(tmp_path / "kept")
    for run in runs:
        registry.register(
            "uc", run, str(tmp_path / "bundle"), {"log_loss": 0.25}, {DIGEST_TAG: "sha256:ab", "rows": "10"}
        )
    return registry


def test_the_same_run_gives_the_same_version(tmp_path: Path) -> None:
    assert ["2", "1"] == [m.version for m in registered(tmp_path, "run-1", "run-1", "run-2").models("uc")]


def test_models_come_newest_first_with_figures_lineage_and_aliases(tmp_path: Path) -> None:
    registry = registered(tmp_path, "run-1", "run-2")
    registry.alias("uc", "champion", "1")
    registry.alias("uc", "champion", "2")
    registry.alias("uc", "former", "1")
    models = registry.models("uc")
    assert [("2", ("champion",)), ("1", ("former",))] == [(model.version, model.aliases) for model in models]
    assert {"log_loss": 0.25} == models[0].metrics
    assert "10" == models[0].tags["rows"]
    assert Path(models[0].bundle_uri.removeprefix("file://"), "manifest.json").exists()


def test_a_version_that_is_not_there_gets_no_alias(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnavailable):
        registered(tmp_path, "run-1").alias("uc", "champion", "7")
