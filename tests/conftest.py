"""Fixtures shared by all tests: an embedded Kafka and Redis, started once for the session when first used."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tailrace.backends.settings import Settings
from tailrace.errors import TailraceError
from tailrace.local.broker import Broker
from tailrace.local.broker_security import BrokerSecurity
from tailrace.local.online_store import OnlineStoreServer

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("laws", deadline=None)
hypothesis.settings.load_profile("laws")


def _absent(what: str, error: Exception) -> None:
    message = f"{what} cannot be started: {error}"
    if os.environ.get("TAILRACE_REQUIRE_INTEGRATION") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of a Kafka broker."""
    given = os.environ.get("TAILRACE_TEST_BROKER")
    if given:
        yield given
        return
    server = Broker(tmp_path_factory.mktemp("broker"))
    try:
        server.start()
    except TailraceError as error:
        _absent("Kafka", error)
    yield server.address
    server.stop()


@pytest.fixture(scope="session")
def secured_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A Kafka broker with TLS, users and an authorizer; `connect` gives its administrator's settings."""
    directory = tmp_path_factory.mktemp("secured-broker")
    server = Broker(directory, security=BrokerSecurity(directory))
    try:
        server.start()
    except TailraceError as error:
        _absent("a secured Kafka", error)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Redis-compatible server."""
    given = os.environ.get("TAILRACE_TEST_REDIS")
    if given:
        yield given
        return
    server = OnlineStoreServer(tmp_path_factory.mktemp("redis"))
    try:
        server.start()
    except TailraceError as error:
        _absent("Redis", error)
    yield server.url
    server.stop()


@pytest.fixture
def settings(broker: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings that point at both servers, with a state directory of the test's own."""
    return Settings(kafka_bootstrap=broker, redis_url=redis_url, state_dir=tmp_path, use_cases=Path("feature_repo"))


@pytest.fixture(scope="session")
def prometheus_bin() -> Path:
    """Folder with `prometheus` and `promtool`: this machine's, else those of Debian's package, fetched once."""
    found = shutil.which("prometheus")
    if found and shutil.which("promtool", path=str(Path(found).parent)):
        return Path(found).parent
    cache = Path("~/.cache/tailrace/prometheus").expanduser()
    binaries = cache / "usr" / "bin"
    if not (binaries / "prometheus").exists():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            _unpack_debian_package("prometheus", cache)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            _absent("Prometheus", error)
    return binaries


def _unpack_debian_package(name: str, target: Path) -> None:
    """Fetches a package with lists of our own, so that neither root nor an `apt-get update` before is needed."""
    with tempfile.TemporaryDirectory(dir=target) as folder:
        part = Path(folder)
        (part / "lists").mkdir()
        (part / "cache").mkdir()
        apt = ["apt-get", "-q", "-o", f"Dir::State::lists={part / 'lists'}", "-o", f"Dir::Cache={part / 'cache'}"]
        # Its exit code is no guide: hooks of the system's configuration may want to be root.
        subprocess.run([*apt, "update"], cwd=part, timeout=240)
        subprocess.run([*apt, "download", name], cwd=part, check=True, timeout=240)
        [package] = part.glob(f"{name}_*.deb")
        subprocess.run(["dpkg", "-x", str(package), str(part / "x")], check=True, timeout=60)
        with contextlib.suppress(OSError):  # another run was quicker
            (part / "x" / "usr").rename(target / "usr")
