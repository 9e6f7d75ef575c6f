"""The whole system on one machine: Kafka, Redis and the services, supervised."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from pydantic import SecretStr

from tailrace.backends import topics
from tailrace.backends.settings import Settings
from tailrace.errors import ConfigError, TailraceError
from tailrace.local.broker import Broker
from tailrace.local.online_store import OnlineStoreServer
from tailrace.local.processes import Child, free_port, port_is_free, spawn
from tailrace.local.system_state import STATE_FILE, Ports, ProcessState, SystemState, read_state, running_state
from tailrace.runtime.service import SERVICES
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

CONFIG_EXIT = 78
MAX_CRASHES = 5
QUICK_S = 30.0
WATCH_S = 0.2
STOP_S = 20.0


class _Service:
    """A service process and its restarts."""

    def __init__(self, name: str, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.probes_port = free_port()
        self._command = command
        self._log = log
        self._environment = environment | {"TAILRACE_METRICS_PORT": str(self.probes_port)}
        self.restarts = 0
        self.gave_up = ""
        self._quick_crashes = 0
        self._started_at = 0.0
        self._start_again_at: float | None = None
        self.child = self._spawn()

    def watch(self) -> bool:
        """Restarts the process when it has ended; True if anything changed."""
        if self.gave_up or self.child.running:
            return False
        now = time.monotonic()
        if self._start_again_at is None:
            return self._plan_restart(now)
        if now < self._start_again_at:
            return False
        self._start_again_at = None
        self.restarts += 1
        self.child = self._spawn()
        return True

    def _plan_restart(self, now: float) -> bool:
        code = self.child.exit_code
        self._quick_crashes = self._quick_crashes + 1 if now - self._started_at < QUICK_S and code != -9 else 0
        if code == CONFIG_EXIT or self._quick_crashes >= MAX_CRASHES:
            why = "its configuration is wrong" if code == CONFIG_EXIT else f"it crashed {MAX_CRASHES} times in a row"
            self.gave_up = f"{self.name} was given up, {why} (exit code {code}); see {self._log}"
            return True
        self._start_again_at = now + (0.0 if code == -9 else min(0.5 * 2**self._quick_crashes, 10.0))
        return False

    def _spawn(self) -> Child:
        self._started_at = time.monotonic()
        return spawn(self.name, self._command, self._log, self._environment)


class Embedded:
    """Kafka, Redis and the six services of each use case as child processes.

    Args:
        directory: Holds all state: data, bundles, logs, and the ports in use.
        settings: Settings to pass on; addresses and `state_dir` are replaced by the embedded ones.
    """

    def __init__(self, directory: Path, *, settings: Settings) -> None:
        self.directory = directory.expanduser().resolve()
        self._ports = _ports(self.directory)
        self.broker = Broker(self.directory, self._ports.kafka, self._ports.controller)
        self.online_store = OnlineStoreServer(self.directory, self._ports.redis)
        self.settings = self.broker.connect(settings).model_copy(
            update={
                "redis_url": self.online_store.url,
                "redis_username": "",
                "redis_password": SecretStr(""),
                "redis_ca": "",
                "state_dir": self.directory,
                "use_cases": settings.use_cases.resolve(),
            }
        )
        self._use_cases: list[str] = []
        self._services: list[_Service] = []
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._revived: Counter[str] = Counter()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self, use_cases: Sequence[str]) -> None:
        """Brings everything up; returns when Kafka and Redis answer and the services have been started.

        Raises:
            ConfigError: it runs already, a port is taken, memory is short, or nothing is to be served.
            UseCaseError: a use case is wrong.
        """
        running = running_state(self.directory)
        if running is not None:
            raise ConfigError(
                f"{self.directory} is in use by process {running.supervisor_pid}; `tailrace down --dir` ends it"
            )
        loaded = [load_use_case(self.settings.use_cases, name) for name in use_cases]
        if not loaded:
            raise ConfigError("no use case to serve; name one with --use-case, or add one to the use case folder")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.online_store.start()
        self.broker.start()
        for use_case in loaded:
            topics.apply(self.settings, use_case)
        self._use_cases = list(use_cases)
        self._open_ops_ports()
        self._services = [
            self._service(service, use_case.name, number)
            for use_case in loaded
            for service in SERVICES
            for number in range(self._workers(service, use_case))
        ]
        self._write_state()
        self._watcher.start()

    def addresses(self) -> dict[str, str]:
        """Where to reach what runs."""
        consoles = {f"console of {name}": f"http://127.0.0.1:{port}/" for name, port in self._ports.ops.items()}
        return {
            "kafka": self.broker.address,
            "redis": self.online_store.url,
            **consoles,
            "logs": str(self.directory / "logs"),
        }

    def probes(self) -> dict[str, str]:
        """Address of /livez, /readyz and /metrics by `<use case>.<service>`; it survives a restart of the service."""
        return {service.name: f"127.0.0.1:{service.probes_port}" for service in self._services}

    def check(self) -> None:
        """Raises when a process was given up.

        Raises:
            TailraceError: names the process, the reason and its log.
        """
        for service in self._services:
            if service.gave_up:
                raise TailraceError(service.gave_up)

    def kill(self, service: str, use_case: str | None = None) -> int:
        """Kills a service with SIGKILL; the supervisor brings it back. Returns the process id."""
        wanted = f"{use_case or self._use_cases[0]}.{service}"
        child = next(s.child for s in self._services if s.name == wanted)
        child.kill()
        return child.pid

    def restart_broker(self) -> None:
        """Kills the broker as a power cut would and starts it again; it ends with the thread that calls this."""
        with self._lock:
            self.broker.kill()
            self.broker.start()

    def stop(self) -> None:
        """Stops services first, then Redis and Kafka; data stay."""
        self._stopping.set()
        with self._lock:  # a restart under way is finished first, else it would outlive us
            for service in self._services:
                if service.child.running:
                    service.child.process.terminate()
        deadline = time.monotonic() + STOP_S
        for service in self._services:
            service.child.stop(max(0.1, deadline - time.monotonic()))
        self.online_store.stop()
        self.broker.stop()
        self._stopped.set()
        if self._watcher.is_alive():
            self._watcher.join(5)
        if self._services:
            self._write_state(ended=True)

    def _workers(self, service: str, use_case: UseCase) -> int:
        return self.settings.feedback_workers if service == "feedback" and use_case.parallel_feedback else 1

    def _service(self, service: str, use_case: str, number: int) -> _Service:
        name = f"{use_case}.{service}" + (f"-{number}" if number else "")
        command = [sys.executable, "-m", "tailrace", "run", service, "--use-case", use_case]
        own = {"TAILRACE_OPS_PORT": str(self._ports.ops[use_case])}
        own |= {"TAILRACE_INSTANCE": str(number)} if number else {}
        environment = _environment(self.settings) | own
        return _Service(name, command, self.directory / "logs" / f"{name}.log", environment)

    def _open_ops_ports(self) -> None:
        ports = dict(self._ports.ops)
        for name in self._use_cases:
            preferred = self.settings.ops_port
            if name not in ports:
                ports[name] = preferred if not ports and port_is_free(preferred) else free_port()
        self._ports = msgspec.structs.replace(self._ports, ops=ports)

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_S):
            with self._lock:
                if self._stopping.is_set():
                    break
                servers = [self._revive(server) for server in (self.online_store, self.broker)]
                services = [service.watch() for service in self._services]
                if any(servers) or any(services):
                    self._write_state()
        # What this thread restarted is killed by the kernel when this thread ends: outlast the orderly stop.
        self._stopped.wait()

    def _revive(self, server: Broker | OnlineStoreServer) -> bool:
        child = server.child
        if child is None or child.running:
            return False
        with contextlib.suppress(TailraceError):
            server.start()
        self._revived[child.name] += 1
        return True

    def _write_state(self, *, ended: bool = False) -> None:
        processes = [ProcessState(s.name, s.child.pid, s.restarts, s.gave_up, s.probes_port) for s in self._services]
        for child in (self.broker.child, self.online_store.child):
            if child is not None:
                processes.insert(0, ProcessState(child.name, child.pid, self._revived[child.name]))
        state = SystemState(
            supervisor_pid=0 if ended else os.getpid(),
            started_at_ms=time.time_ns() // 1_000_000,
            ports=self._ports,
            use_cases=self._use_cases,
            processes=[] if ended else processes,
        )
        path = self.directory / STATE_FILE
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
        part.replace(path)


def _ports(directory: Path) -> Ports:
    known = read_state(directory)
    if known is not None:
        return known.ports
    return Ports(free_port(), free_port(), free_port(), {})


def _environment(settings: Settings) -> dict[str, str]:
    dumped = settings.model_dump()
    values = {n: v.get_secret_value() if isinstance(v, SecretStr) else v for n, v in dumped.items()}
    # One BLAS or OpenMP pool per service would fight over the cores.
    threads = {name: str(settings.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return {f"TAILRACE_{name.upper()}": str(value) for name, value in values.items()} | threads


def connected(settings: Settings, directory: Path | None = None) -> Settings:
    """Settings for a command: the embedded system's addresses while one runs, unless the environment names others.

    Raises:
        ConfigError: nothing runs in the directory that was named.
    """
    if directory is None and "TAILRACE_KAFKA_BOOTSTRAP" in os.environ:
        return settings
    state_dir = (directory or settings.state_dir).expanduser()
    if running_state(state_dir) is None:
        if directory is not None:
            raise ConfigError(f"nothing runs in {directory}; start it with `tailrace up --dir {directory}`")
        return settings
    return Embedded(state_dir, settings=settings).settings


def ops_url(settings: Settings, use_case: str, directory: Path | None = None) -> str:
    """Address of a use case's admin API: the one that settings name, else that of the embedded system."""
    if settings.ops_url:
        return settings.ops_url.rstrip("/")
    state = running_state((directory or settings.state_dir).expanduser())
    if state is None:
        return f"http://127.0.0.1:{settings.ops_port}"
    if use_case not in state.ports.ops:
        raise ConfigError(f"use case {use_case!r} is not being served; those that are: {', '.join(state.use_cases)}")
    return f"http://127.0.0.1:{state.ports.ops[use_case]}"
