"""Our own services as processes, started as `tailrace up` starts them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tailrace.backends.settings import Settings
from tailrace.local.processes import Child, spawn

Alive = Callable[[], None]
"""Raises `RuntimeError` when a process that should run has ended by itself."""


@contextmanager
def running(settings: Settings, use_case: str, services: Sequence[str]) -> Iterator[Alive]:
    """Services of one use case for the length of the block.

    Yields:
        Raises `RuntimeError` when one of them has ended; for `streams.output_rate`.
    """
    environment = {
        "TAILRACE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "TAILRACE_REDIS_URL": settings.redis_url,
        "TAILRACE_STATE_DIR": str(settings.state_dir),
        "TAILRACE_USE_CASES": str(settings.use_cases),
        "TAILRACE_LOG_LEVEL": "WARNING",
        "OMP_NUM_THREADS": str(settings.threads),
    }
    logs = settings.state_dir / "logs"
    children = [
        spawn(name, [sys.executable, "-m", "tailrace", "run", name, "--use-case", use_case], log, environment)
        for name in services
        for log in [logs / f"{use_case}.{name}.log"]
    ]
    with stopping(children, [logs / f"{use_case}.{name}.log" for name in services]) as alive:
        yield alive


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
