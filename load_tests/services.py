"""Our own processes: services as `tailrace up` starts them, twins of them, and hand-written loops."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from load_tests import streams
from tailrace.backends.settings import Settings
from tailrace.local.processes import Child, spawn

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 120.0
Alive = Callable[[], None]
"""Raises `RuntimeError` when a process that should run has ended by itself."""


def service(name: str, use_case: str) -> list[str]:
    """Arguments of Python for a service as deployed."""
    return ["-m", "tailrace", "run", name, "--use-case", use_case]


def rate(settings: Settings, arguments: Sequence[str], sink: str, events: int, *, each_once: bool = False) -> float:
    """Events per second that a process of this environment writes to a topic; see `streams.output_rate`."""
    with running(settings, {"candidate": arguments}) as alive:
        return streams.output_rate(settings, sink, events, timeout_s=TIMEOUT_S, alive=alive, each_once=each_once)


@contextmanager
def running(settings: Settings, processes: Mapping[str, Sequence[str]]) -> Iterator[Alive]:
    """Processes of this environment for the length of the block: arguments of Python by name.

    Yields:
        Raises `RuntimeError` when one of them has ended; for `streams.output_rate`.
    """
    with measured(settings, processes) as (alive, _):
        yield alive


@contextmanager
def measured(
    settings: Settings, processes: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Alive, dict[str, psutil.Process]]]:
    """As `running`, with the processes by name beside it, whose CPU time and memory can be asked for.

    Each is an instance of its own, so that several of one service are members of one group.
    """
    logs = [settings.state_dir / "logs" / f"{name}.log" for name in processes]
    children = [
        spawn(name, [sys.executable, *arguments], log, environment(settings) | {"TAILRACE_INSTANCE": str(number)})
        for number, ((name, arguments), log) in enumerate(zip(processes.items(), logs, strict=True))
    ]
    with stopping(children, logs) as alive:
        yield alive, {child.name: psutil.Process(child.pid) for child in children}


def servers() -> dict[str, psutil.Process]:
    """Broker and Redis that this process has started."""
    names = {"java": "broker", "redis-server": "redis", "valkey-server": "redis"}
    return {names[child.name()]: child for child in psutil.Process().children() if child.name() in names}


def spent_s(process: psutil.Process) -> float:
    """Processor seconds of a process since it started."""
    times = process.cpu_times()
    return float(times.user + times.system)


def environment(settings: Settings) -> dict[str, str]:
    """Variables with which a child finds the same servers and the same code."""
    return {
        "TAILRACE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "TAILRACE_REDIS_URL": settings.redis_url,
        "TAILRACE_STATE_DIR": str(settings.state_dir),
        "TAILRACE_USE_CASES": str(settings.use_cases),
        "TAILRACE_THREADS": str(settings.threads),
        "TAILRACE_LOG_LEVEL": "WARNING",
        "OMP_NUM_THREADS": str(settings.threads),
        "PYTHONPATH": f"{ROOT / 'services'}:{ROOT}",
    }


@contextmanager
def stopping(children: Sequence[Child], logs: Sequence[Path]) -> Iterator[Alive]:
    """Stops child processes at the end of the block; yields what raises when one has ended by itself with an error."""

    def alive() -> None:
        for child, log in zip(children, logs, strict=True):
            if child.exit_code not in (None, 0):
                raise RuntimeError(
                    f"{child.name} ended with {child.exit_code}: {log.read_text(errors='replace')[-800:]}"
                )

    try:
        yield alive
    finally:
        for child in children:
            if child.running:
                child.process.terminate()
        for child in children:
            child.stop(10)
            with contextlib.suppress(ProcessLookupError):  # what it has started itself; it leads a group of its own
                os.killpg(child.pid, signal.SIGKILL)
