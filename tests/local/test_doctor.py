from __future__ import annotations

import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tailrace.backends.settings import Settings
from tailrace.local import doctor
from tailrace.local.doctor import Finding, examine
from tailrace.local.processes import free_port


@pytest.fixture
def use_cases(tmp_path: Path) -> Path:
    folder = tmp_path / "use_cases"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "usecase.py").write_text("import tailrace as tr\nx = tr.Cuont()\n")
    return folder


def _settings(use_cases: Path, **changes: str) -> Settings:
    places = {
        "kafka_bootstrap": f"127.0.0.1:{free_port()}",
        "redis_url": f"redis://127.0.0.1:{free_port()}/0",
        "use_cases": str(use_cases),
        "state_dir": str(use_cases),
    }
    return Settings(**(places | changes))  # type: ignore[arg-type]  # values are validated by pydantic


def _examine(settings: Settings) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(settings)}


def test_nobody_listening_is_named_with_the_address(use_cases: Path) -> None:
    settings = _settings(use_cases)
    began = time.monotonic()
    found = _examine(settings)
    assert time.monotonic() - began < 5
    assert not found["kafka"].ok
    assert f"nobody listens at {settings.kafka_bootstrap}" in found["kafka"].detail
    assert not found["online store"].ok
    assert "TAILRACE_REDIS_URL" in found["online store"].detail


def test_unknown_host_is_told_from_a_closed_port(use_cases: Path) -> None:
    found = _examine(_settings(use_cases, kafka_bootstrap="no-such-host.invalid:9092"))
    assert "the host of no-such-host.invalid:9092 is unknown" in found["kafka"].detail


def test_listener_that_is_silent_is_not_called_absent(use_cases: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = _examine(_settings(use_cases, kafka_bootstrap=f"127.0.0.1:{silent.getsockname()[1]}"))
    assert "accepts connections but gives no answer in PLAINTEXT" in found["kafka"].detail


def test_wrong_declaration_is_shown_with_its_findings(use_cases: Path) -> None:
    found = _examine(_settings(use_cases))["use case shop"]
    assert not found.ok
    assert "did you mean 'Count'?" in found.detail


def test_empty_folder_of_use_cases_is_a_finding(tmp_path: Path) -> None:
    found = _examine(_settings(tmp_path))["use cases"]
    assert not found.ok
    assert "set TAILRACE_USE_CASES" in found.detail


def test_disk_memory_and_java_are_looked_at(use_cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    little = SimpleNamespace(
        disk_usage=lambda _path: SimpleNamespace(free=5 * 2**20),
        virtual_memory=lambda: SimpleNamespace(available=6 * 2**20),
    )
    assert _examine(_settings(use_cases))["java"].ok
    monkeypatch.setattr(doctor, "psutil", little)
    found = _examine(_settings(use_cases, state_dir=str(use_cases / "not" / "yet" / "there")))
    assert (False, True) == (found["disk"].ok, found["disk"].detail.startswith("5 MB free at"))
    assert (False, True) == (found["memory"].ok, found["memory"].detail.startswith("6 MB available"))
