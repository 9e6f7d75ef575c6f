"""docker compose itself on docker-compose.yml, without an engine. Building it takes minutes: only `make validate` does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.production.conftest import ROOT, go, module, program

COMPOSE = "github.com/docker/compose/v2@v2.40.3"


@pytest.fixture(scope="module")
def docker_compose() -> Path:
    """docker compose."""

    def build(folder: Path) -> None:
        # Its module replaces others, which `go install` refuses.
        go("build", "-mod=mod", "-o", str(folder / "docker-compose"), "./cmd", cwd=module(COMPOSE))

    return program("docker-compose-2.40.3", build)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("profile", ["", "gpu"])
def test_docker_compose_takes_the_file(docker_compose: Path, profile: str) -> None:
    environment = os.environ | {"COMPOSE_PROFILES": profile, "USE_CASE": "elec2", "OPS_TOKEN": "t" * 32}
    command = [docker_compose, "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    services = json.loads(done.stdout)["services"]
    assert bool(profile) == ("inference-gpu" in services)
    assert ["run", "features", "--use-case", "elec2"] == services["features"]["command"]


@pytest.mark.timeout(900)
def test_docker_compose_asks_for_the_password_of_the_console(docker_compose: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPS_TOKEN"}
    command = [docker_compose, "config", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "OPS_TOKEN" in done.stderr
