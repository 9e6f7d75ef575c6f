"""Life cycle of a service process: logs, probes, signals."""

from __future__ import annotations

import copy
import gc
import importlib
import importlib.metadata
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from tailrace.backends.logs import configure_logs
from tailrace.backends.settings import Settings
from tailrace.backends.telemetry import Metrics
from tailrace.backends.web import serve_probes
from tailrace.contracts.metrics import STAGES
from tailrace.runtime.heartbeats import Heart
from tailrace.usecase.load import load_use_case

SERVICES = STAGES


class Lifecycle:
    """What a running service is told, and tells.

    Attributes:
        stopping: Set once the process has been asked to end.
        log: Logger bound to service and use case.
        metrics: Prometheus handles.
    """

    def __init__(self, service: str, use_case: str) -> None:
        self.stopping = threading.Event()
        self.log: Any = structlog.get_logger().bind(service=service, use_case=use_case)
        self.metrics = Metrics(use_case, service)
        self.metrics.build_info.labels(importlib.metadata.version("tailrace")).set(1)
        self.metrics.ready.set(0)
        self._loop = ""
        self._not_ready = {"": "starting"}
        self._guarded: dict[str, Callable[[], float]] = {}

    def loops(self, names: Sequence[str]) -> dict[str, Lifecycle]:
        """As many views on this life cycle, for the loops of a service that has several: ready are they together."""
        self._not_ready.clear()
        self._not_ready |= dict.fromkeys(names, "starting")
        views = {name: copy.copy(self) for name in names}
        for name, view in views.items():
            view._loop, view.log = name, self.log.bind(loop=name)
        return views

    def ready(self, is_ready: bool, reason: str = "") -> None:
        """Says whether work can be done; the probe /readyz answers with `reason` when not."""
        self._not_ready[self._loop] = "" if is_ready else (reason or "not ready")
        self.metrics.ready.set(not self.not_ready())

    def not_ready(self) -> str:
        """Why the service is not ready; "" when it is."""
        return next((why for why in list(self._not_ready.values()) if why), "")

    def guarded(self, age_s: Callable[[], float]) -> None:
        """Has the age of guarded calls exported, seconds; of several loops the longest."""
        self._guarded[self._loop] = age_s
        self.metrics.guarded_call.set_function(lambda: max(age() for age in list(self._guarded.values())))


def run_service(name: str, use_case_name: str, settings: Settings) -> None:
    """Runs one service for one use case until SIGTERM or SIGINT.

    Raises:
        UseCaseError: the use case cannot be loaded.
        ConfigError: a setting is wrong.
        Fatal: going on would break a guarantee.
    """
    configure_logs(settings)
    lifecycle = Lifecycle(name, use_case_name)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: lifecycle.stopping.set())
    use_case = load_use_case(Path(settings.use_cases), use_case_name)
    port = serve_probes(settings.metrics_host, settings.metrics_port, lifecycle.metrics.registry, lifecycle.not_ready)
    Heart(settings, use_case_name, name, lifecycle.metrics, lifecycle.not_ready, lifecycle.stopping).start()
    lifecycle.log.info("service_started", probes_port=port, instance=settings.instance)
    service = importlib.import_module(f"tailrace.{name}.service")
    spare_collector()
    service.run(settings, use_case, lifecycle)
    lifecycle.log.info("service_stopped")


def spare_collector() -> None:
    """Keeps the garbage collector from looking again and again at what stays.

    Records of a batch are no garbage while the batch lasts, and form no cycles: a collection every 700 objects,
    Python's default, finds nothing some fifty times a batch.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
