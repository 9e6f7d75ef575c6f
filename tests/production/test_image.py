"""The image: built as the repository says, run as nobody."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

from tailrace.backends.settings import Settings

ROOT = Path(__file__).parents[2]
# Continued lines joined, comments dropped.
LINES = [
    line.strip()
    for line in re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    .replace("\\\n", " ")
    .splitlines()
    if line.strip()
]


def arguments(instruction: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in LINES if line.split()[0] == instruction]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in arguments("ENV") for pair in line.split())


def test_linter_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stdout)


def test_every_setting_in_the_image_is_one_that_tailrace_knows() -> None:
    values = {name.removeprefix("TAILRACE_").lower(): x for name, x in environment().items() if "TAILRACE_" in name}
    settings = Settings(**values)  # type: ignore[arg-type]  # pydantic reads the texts
    assert [str(settings.metrics_port)] == arguments("EXPOSE")
    assert [str(settings.state_dir)] == arguments("VOLUME")
    assert "0.0.0.0" == settings.metrics_host
    assert any(line.split() == ["feature_repo", str(settings.use_cases)] for line in arguments("COPY"))


def test_pools_of_threads_are_as_large_as_the_setting() -> None:
    sizes = {int(value) for name, value in environment().items() if name.endswith("_NUM_THREADS")}
    assert {Settings().threads} == sizes


def test_image_runs_tailrace_as_a_numbered_user_and_leaves_probes_to_the_orchestrator() -> None:
    assert ['["tailrace"]'] == arguments("ENTRYPOINT")
    assert ["10001:10001"] == arguments("USER")
    assert [] == arguments("HEALTHCHECK") + arguments("CMD")
    assert ["${BASE}"] == arguments("FROM")[-1:]


def test_packages_come_by_the_hashes_of_the_lock() -> None:
    installed = [line for line in arguments("RUN") if "uv pip install" in line and "runtime.txt" in line]
    assert 1 == len(installed)
    assert "--require-hashes --constraint requirements.lock" in installed[0]


def test_build_context_holds_what_is_copied_and_no_more() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word for line in arguments("COPY") if "--from" not in line for word in line.split()[:-1] if "--" not in word
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert not any(fnmatch.fnmatch(".venv", name) for name in allowed)
