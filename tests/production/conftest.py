"""Tools that check the files of production: Go programs, built once into a cache with the Go of a wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

ROOT = Path(__file__).parents[2]
CACHE = Path("~/.cache/tailrace/bin").expanduser()
GO = Path(sys.executable).with_name("go")
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"
COMPOSE = "github.com/compose-spec/compose-go/v2/cmd@v2.9.1"

Documents = list[dict[str, Any]]


def go(*words: str, cwd: Path = ROOT, **environment: str) -> str:
    command = [str(GO), *words]
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        message = f"{' '.join(command)} failed; it needs the Go module proxy, once: {done.stderr[-2000:]}"
        if os.environ.get("TAILRACE_REQUIRE_INTEGRATION") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return done.stdout


def module(name: str) -> Path:
    """Folder of a Go module, fetched when it is not there."""
    return Path(json.loads(go("mod", "download", "-json", name))["Dir"])


def program(name: str, build: Callable[[Path], object]) -> Path:
    """A program of the cache; `build` puts it into a folder of its own, so that half of one is never run."""
    place = CACHE / name
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            build(Path(folder))
            (made,) = Path(folder).iterdir()
            made.replace(place)
    return place


@pytest.fixture(scope="session")
def kustomize() -> Path:
    """kustomize; building it takes 20 to 40 s."""
    return program("kustomize-5.7.1", lambda folder: go("install", KUSTOMIZE, GOBIN=str(folder)))


@pytest.fixture(scope="session")
def compose() -> Path:
    """The loader of docker compose 2.40.3 as a program of its own; building it takes 10 s."""
    return program("compose-spec-2.9.1", lambda folder: go("install", COMPOSE, GOBIN=str(folder)))


@pytest.fixture(scope="session")
def base(kustomize: Path) -> Documents:
    """What `kubectl apply -k k8s/base` would apply."""
    return built(kustomize, "k8s/base")


@pytest.fixture(scope="session")
def production(kustomize: Path) -> Documents:
    """What `kubectl apply -k k8s/overlays/production` would apply."""
    return built(kustomize, "k8s/overlays/production")


@pytest.fixture(scope="session")
def card_fraud() -> UseCase:
    """The use case that the committed files deploy."""
    return load_use_case(ROOT / "feature_repo", "card_fraud")


def built(kustomize: Path, folder: str) -> Documents:
    done = subprocess.run([kustomize, "build", folder], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns"
    return list(yaml.safe_load_all(done.stdout))
