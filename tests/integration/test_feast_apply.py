from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from sqlalchemy import create_engine, text

from tailrace.usecase.load import load_use_case, use_case_names

REPOSITORY = Path(__file__).parents[2] / "feature_repo"


def test_feast_apply_registers_a_view_and_a_service_per_use_case(tmp_path: Path) -> None:
    repository = tmp_path / "feature_repo"
    shutil.copytree(REPOSITORY, repository, ignore=shutil.ignore_patterns("__pycache__", "*.db"))
    command = [sys.executable, "-m", "feast.cli.cli", "apply"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    plans = [load_use_case(repository, name).plan for name in use_case_names(repository)]
    engine = create_engine(f"sqlite:///{repository}/data/registry.db")
    with engine.connect() as connection:
        views = {row[0] for row in connection.execute(text("select feature_view_name from feature_views"))}
        services = {row[0] for row in connection.execute(text("select feature_service_name from feature_services"))}
        entities = {row[0] for row in connection.execute(text("select entity_name from entities"))}
    assert views == {view.name for plan in plans for view in plan.views}
    assert services == {plan.use_case for plan in plans}
    assert entities >= {view.entity for plan in plans for view in plan.views}
