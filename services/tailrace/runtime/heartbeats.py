"""What a worker says of itself once a second, so that nobody needs to know where it runs to see how it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from confluent_kafka import KafkaException
from prometheus_client import Counter, Histogram

from tailrace.backends.codec import encode
from tailrace.backends.kafka import producer
from tailrace.backends.settings import Settings
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import Heartbeat
from tailrace.contracts.topics import Topics

EVERY_S = 1.0


class Heart(threading.Thread):
    """Produces a `Heartbeat` a second until told to stop; a broker that is away costs beats, nothing else.

    Args:
        settings: Where the broker is, and which instance this is.
        use_case: Name of the use case served.
        service: Name of the service.
        metrics: What to report of.
        not_ready: Why no work can be done; "" when it can.
        stopping: Set once the process has been asked to end.
    """

    def __init__(
        self,
        settings: Settings,
        use_case: str,
        service: str,
        metrics: Metrics,
        not_ready: Callable[[], str],
        stopping: threading.Event,
    ) -> None:
        super().__init__(name="heart", daemon=True)
        self._settings = settings
        self._use_case = use_case
        self._service = service
        self._metrics = metrics
        self._not_ready = not_ready
        self._stopping = stopping
        self._started_at_ms = _now_ms()

    def run(self) -> None:
        """Beats until the process stops."""
        # A beat that is late is worth nothing: the next one says more.
        writer = producer(self._settings, **{"acks": "1", "enable.idempotence": False, "message.timeout.ms": 3_000})
        topic, key = Topics(self._use_case).heartbeats, f"{self._service}.{self._settings.instance}"
        while not self._stopping.wait(EVERY_S):
            try:
                writer.produce(topic, encode(self.beat()), key)
                writer.poll(0)
            except (BufferError, KafkaException):
                continue

    def beat(self) -> Heartbeat:
        """The worker as it is now."""
        metrics = self._metrics
        bounds_ms, counts = _distribution(metrics.end_to_end_seconds)
        return Heartbeat(
            use_case=self._use_case,
            service=self._service,
            instance=self._settings.instance,
            started_at_ms=self._started_at_ms,
            at_ms=_now_ms(),
            not_ready=self._not_ready(),
            records=_total(metrics.records),
            dead_letters=_total(metrics.dead_letters),
            restarts=_total(metrics.restarts),
            predictions=_total(metrics.predictions),
            degraded=_by_label(metrics.degraded, "reason"),
            latency_bounds_ms=bounds_ms,
            latency_counts=counts,
        )


def _total(counter: Counter) -> int:
    return int(sum(sample.value for sample in next(iter(counter.collect())).samples if sample.name.endswith("_total")))


def _by_label(counter: Counter, label: str) -> dict[str, int]:
    samples = next(iter(counter.collect())).samples
    return {s.labels[label]: int(s.value) for s in samples if s.name.endswith("_total") and s.value}


def _distribution(histogram: Histogram) -> tuple[list[float], list[int]]:
    """Upper bounds in milliseconds without the infinite one, and counts by bucket; both empty before the first value."""
    buckets = [(s.labels["le"], s.value) for s in next(iter(histogram.collect())).samples if s.name.endswith("_bucket")]
    if not buckets or buckets[-1][1] == 0:
        return [], []
    totals = [int(value) for _, value in buckets]
    counts = [total - below for total, below in zip(totals, [0, *totals], strict=False)]
    return [float(bound) * 1_000 for bound, _ in buckets[:-1]], counts


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
