from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import psutil
import pytest

from tailrace.backends.settings import Settings
from tailrace.errors import ConfigError, TailraceError
from tailrace.local import supervisor
from tailrace.local.supervisor import MAX_CRASHES, Embedded, _Service
from tailrace.local.system_state import STATE_FILE, Ports, ProcessState, SystemState, read_state, running_state

ORDERLY = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(0)))
Path(sys.argv[1]).touch()
time.sleep(60)
"""


class Clock:
    """A clock that stands still until it is moved, seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], _Service]]:
    started: list[_Service] = []

    def begin(script: str) -> _Service:
        started.append(_Service("service", ["sh", "-c", script], tmp_path / "log", {}))
        return started[-1]

    yield begin
    for service in started:
        service.child.kill()


def _state(**changes: object) -> SystemState:
    state = SystemState(
        supervisor_pid=os.getppid(),
        started_at_ms=time.time_ns() // 1_000_000,
        ports=Ports(1, 2, 3, {"card_fraud": 4}),
        use_cases=["shop"],
        processes=[ProcessState("kafka", 1)],
    )
    return msgspec.structs.replace(state, **changes)


def _write(directory: Path, state: SystemState) -> None:
    (directory / STATE_FILE).write_bytes(msgspec.json.encode(state))


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "nothing happened within 10 s"
        time.sleep(0.01)


def test_crashing_service_is_restarted_with_growing_pauses_then_given_up(
    clock: Clock, start: Callable[[str], _Service]
) -> None:
    service = start("exit 1")
    pauses = []
    while not service.gave_up:
        service.child.process.wait()
        planned_at = clock.now
        service.watch()
        while not service.gave_up and not service.watch():
            clock.now += 0.25
        if not service.gave_up:
            pauses.append(clock.now - planned_at)
    assert [1.0, 2.0, 4.0, 8.0] == pauses
    assert MAX_CRASHES - 1 == service.restarts
    assert f"crashed {MAX_CRASHES} times in a row" in service.gave_up


def test_service_with_wrong_configuration_is_not_restarted(clock: Clock, start: Callable[[str], _Service]) -> None:
    service = start("exit 78")
    service.child.process.wait()
    assert service.watch()
    assert 0 == service.restarts
    assert "its configuration is wrong (exit code 78)" in service.gave_up


def test_killed_service_is_restarted_at_once(clock: Clock, start: Callable[[str], _Service]) -> None:
    service = start("sleep 60")
    before = service.child.pid
    service.child.kill()
    service.watch()
    assert service.watch()
    assert service.child.running
    assert before != service.child.pid
    assert 1 == service.restarts


def test_crash_after_a_long_run_counts_as_the_first(clock: Clock, start: Callable[[str], _Service]) -> None:
    service = start("exit 1")
    for _ in range(3 * MAX_CRASHES):
        service.child.process.wait()
        clock.now += 3600
        service.watch()
        clock.now += 10
        assert service.watch()
    assert not service.gave_up


def test_restarted_service_is_stopped_in_order_and_not_killed(tmp_path: Path) -> None:
    # The kernel kills a child when the thread that started it ends, and the watcher starts what it restarts.
    ready = tmp_path / "ready"
    service = _Service("service", [sys.executable, "-c", ORDERLY, str(ready)], tmp_path / "log", {})
    embedded = Embedded(tmp_path, settings=Settings())
    embedded._services = [service]
    embedded._watcher.start()
    _until(ready.exists)
    ready.unlink()
    service.child.process.kill()
    _until(ready.exists)
    embedded.stop()
    assert (1, 0) == (service.restarts, service.child.exit_code)
    assert not embedded._watcher.is_alive()


def test_given_up_service_is_reported_with_its_log(tmp_path: Path, clock: Clock) -> None:
    service = _Service("shop.trainer", ["sh", "-c", "exit 78"], tmp_path / "log", {})
    service.child.process.wait()
    service.watch()
    embedded = Embedded(tmp_path, settings=Settings())
    embedded._services = [service]
    with pytest.raises(TailraceError, match=r"shop\.trainer was given up.*log"):
        embedded.check()


def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, _state())
    with pytest.raises(ConfigError, match=f"in use by process {os.getppid()}; `tailrace down"):
        Embedded(tmp_path, settings=Settings()).start(["card_fraud"])


def test_state_of_a_process_that_is_gone_is_stale(tmp_path: Path) -> None:
    _write(tmp_path, _state(supervisor_pid=2**22 - 1))
    assert running_state(tmp_path) is None


def test_supervisor_that_was_killed_and_not_yet_reaped_does_not_run(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        child.kill()
        _until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        _write(tmp_path, _state(supervisor_pid=child.pid))
        assert running_state(tmp_path) is None


def test_reused_process_id_is_not_taken_for_the_supervisor(tmp_path: Path) -> None:
    _write(tmp_path, _state(started_at_ms=0))
    assert running_state(tmp_path) is None


def test_ports_are_kept_across_restarts(tmp_path: Path) -> None:
    _write(tmp_path, _state(supervisor_pid=0))
    assert "127.0.0.1:1" == Embedded(tmp_path, settings=Settings()).addresses()["kafka"]


def test_damaged_state_file_is_named(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text('{"ports": ')
    with pytest.raises(ConfigError, match=r"tailrace\.json is damaged .*; remove it"):
        read_state(tmp_path)


def test_stop_before_start_does_nothing(tmp_path: Path) -> None:
    Embedded(tmp_path / "never", settings=Settings()).stop()
    assert not (tmp_path / "never").exists()
    assert "supervisor" not in {thread.name for thread in threading.enumerate()}


def test_parallel_feedback_has_as_many_workers_as_asked_for_each_with_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, str] = {}

    def service(name: str, command: list[str], log: Path, environment: dict[str, str]) -> SimpleNamespace:
        made[name] = environment["TAILRACE_INSTANCE"]
        child = SimpleNamespace(pid=1, running=False, stop=lambda timeout_s: None)
        return SimpleNamespace(
            name=name, probes_port=1, restarts=0, gave_up="", child=child, watch=lambda: False, log=log, command=command
        )

    cases = {name: SimpleNamespace(name=name, parallel_feedback=name == "shared") for name in ("shared", "alone")}
    monkeypatch.setattr(supervisor, "load_use_case", lambda folder, name: cases[name])
    monkeypatch.setattr(supervisor.topics, "apply", lambda settings, use_case: [])
    monkeypatch.setattr(supervisor, "_Service", service)
    for server in (supervisor.Broker, supervisor.OnlineStoreServer):
        monkeypatch.setattr(server, "start", lambda server: None)
    embedded = Embedded(tmp_path, settings=Settings(feedback_workers=3))
    embedded.start(list(cases))
    embedded.stop()
    workers = {name: instance for name, instance in made.items() if "feedback" in name}
    assert workers == {
        "shared.feedback": "0",
        "shared.feedback-1": "1",
        "shared.feedback-2": "2",
        "alone.feedback": "0",
    }
    assert len(made) == len(workers) + 2 * 5
