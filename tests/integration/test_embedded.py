"""The embedded servers and the whole system: survive kills with their data, end in order, and say what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic

from tailrace.backends.kafka import admin, consumer, producer, read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.errors import BrokerUnavailable, ConfigError
from tailrace.local.broker import Broker
from tailrace.local.doctor import examine
from tailrace.local.online_store import OnlineStoreServer
from tailrace.local.status import group_lags

USE_CASE = "card_fraud"


def _until(holds: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.1)


@pytest.fixture
def own_broker(broker: str, tmp_path: Path) -> Iterator[Broker]:
    """A broker that a test may break; `broker` is asked for so that a machine without Java skips."""
    server = Broker(tmp_path / "own", heap_mb=192)
    server.start()
    yield server
    server.stop()


def test_records_survive_sigkill_of_the_broker(own_broker: Broker) -> None:
    settings = Settings(kafka_bootstrap=own_broker.address)
    client = admin(settings)  # kept: a client that goes away takes its answers with it
    for future in client.create_topics([NewTopic("kept", 1, 1)]).values():
        future.result(30)
    writer = producer(settings)
    for number in range(1_000):
        writer.produce("kept", str(number).encode())
    assert 0 == writer.flush(30)
    address = own_broker.address
    own_broker.kill()
    own_broker.start()
    assert address == own_broker.address
    assert [str(n).encode() for n in range(1_000)] == [message.value for message in read_topic(settings, "kept")]


def test_records_survive_sigkill_of_the_online_store(redis_url: str, tmp_path: Path) -> None:
    server = OnlineStoreServer(tmp_path / "own")
    server.start()
    client = redis.Redis.from_url(server.url)
    client.set("kept", "yes")
    client.config_set("appendfsync", "always")
    client.set("also", "yes")
    assert server.child is not None
    server.child.kill()
    server.start()
    assert (b"yes", b"yes") == (client.get("kept"), client.get("also"))
    client.close()
    server.stop()


def test_taken_port_is_named(own_broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"port {own_broker.port} is taken, so Kafka cannot start; free it"):
        Broker(tmp_path / "second", own_broker.port).start()
    with pytest.raises(ConfigError, match=f"port {own_broker.port} is taken, so Redis cannot start; free it"):
        OnlineStoreServer(tmp_path / "second", own_broker.port).start()


def test_damaged_data_of_the_broker_are_named_at_once(own_broker: Broker) -> None:
    own_broker.stop()
    (own_broker.directory / "kafka" / "meta.properties").write_text("version=1\nnode.id=7\n")
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"ended with exit code .* are damaged, use another --dir"):
        own_broker.start()
    assert time.monotonic() - began < 30


def test_short_memory_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    available = psutil.virtual_memory()._replace(available=10 * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    with pytest.raises(ConfigError, match="needs 700 MB of free memory"):
        Broker(tmp_path).start()


def _commit(reader: Consumer, offsets: list[TopicPartition]) -> None:
    """Commits as soon as the broker, perhaps just started, lets it."""
    deadline = time.monotonic() + 30
    while True:
        try:
            reader.commit(offsets=offsets, asynchronous=False)
            return
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_doctor_finds_running_servers_in_order(settings: Settings) -> None:
    found = {finding.subject: finding for finding in examine(settings)}
    assert found["kafka"].ok
    assert found["online store"].ok


def test_lag_counts_what_a_group_has_still_to_read(settings: Settings) -> None:
    client = admin(settings)
    for future in client.create_topics([NewTopic("lag.events", 2, 1)]).values():
        future.result(30)
    writer = producer(settings)
    for number in range(10):
        writer.produce("lag.events", b"x", partition=number % 2)
    assert 0 == writer.flush(30)
    group = Topics("lag").group("features")
    reader = consumer(settings, group, **{"group.protocol": "classic", "group.instance.id": ""})
    _commit(reader, [TopicPartition("lag.events", 0, 3), TopicPartition("lag.events", 1, 1)])
    reader.close()
    lags = group_lags(settings, ["lag"])
    assert 6 == lags.pop(group)
    assert {None} == set(lags.values())


def test_lag_of_a_broker_that_just_came_up_is_told_without_a_crash(own_broker: Broker) -> None:
    # In a process of its own: what this guards against ends the process from within the client library.
    settings = f"Settings(kafka_bootstrap={own_broker.address!r})"
    script = (
        "from tailrace.backends.settings import Settings\n"
        "from tailrace.local.status import group_lags\n"
        f"print(set(group_lags({settings}, ['shop']).values()))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (0, "{None}\n") == (found.returncode, found.stdout), found.stderr


def _tailrace(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TAILRACE_TEST_BROKER"}
    command = [sys.executable, "-m", "tailrace", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def _status(directory: Path) -> dict[str, dict[str, Any]]:
    answer = json.loads(_tailrace("status", "--dir", str(directory), "--json").stdout)
    return {process["name"]: process for process in answer["processes"]}


def _answers(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def system(broker: str, redis_url: str, tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    directory = tmp_path / "system"
    words = ("--dir", str(directory), "--use-case", USE_CASE, "--json")
    result = _tailrace("up", "--detach", *words)
    assert 0 == result.returncode, result.stderr
    yield directory, json.loads(result.stdout)
    _tailrace("down", "--dir", str(directory))


def test_up_status_kill_and_down(system: tuple[Path, dict[str, str]]) -> None:
    directory, addresses = system
    before = _status(directory)
    assert {"kafka", "redis", f"{USE_CASE}.features", f"{USE_CASE}.ops"} <= set(before)
    again = _tailrace("up", "--dir", str(directory), "--use-case", USE_CASE)
    assert 78 == again.returncode
    assert "is in use by process" in again.stderr

    killed = (f"{USE_CASE}.inference", "redis", "kafka")
    for name in killed:
        os.kill(before[name]["pid"], signal.SIGKILL)

    def back() -> bool:
        now = _status(directory)
        return all(now[name]["restarts"] == 1 and now[name]["state"] == "running" for name in killed)

    _until(back, f"{killed} restarted")
    _until(lambda: _answers(addresses["kafka"]), "Kafka answers at its former address")

    pids = [process["pid"] for process in _status(directory).values()]
    assert 0 == _tailrace("down", "--dir", str(directory)).returncode
    assert [] == [pid for pid in pids if _alive(pid)]
    log = (directory / "logs" / f"{USE_CASE}.inference.log").read_text()
    assert "service_stopped" in log.splitlines()[-1], "a restarted service must end in order too"


def test_nothing_outlives_a_killed_supervisor(system: tuple[Path, dict[str, str]]) -> None:
    directory, _ = system
    pids = [process["pid"] for process in _status(directory).values()]
    supervisor = json.loads((directory / "tailrace.json").read_bytes())["supervisor_pid"]
    assert supervisor > 0, "the system has ended; 0 would name this very process group"
    os.kill(supervisor, signal.SIGKILL)
    _until(lambda: not any(_alive(pid) for pid in pids), "all children are gone")
    assert "nothing runs" in _tailrace("status", "--dir", str(directory)).stdout
