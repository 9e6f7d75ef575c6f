"""Keeps what an operator sees up to date: one thread follows the topics, one asks how far consumers are behind."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tailrace.backends.kafka import group_reader, partitions_of, to_message
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.errors import BrokerUnavailable
from tailrace.ops.lag import Lag, LagProbe
from tailrace.ops.status import Evidence, status_of
from tailrace.ops.view import LoopView
from tailrace.runtime.service import SERVICES, Lifecycle
from tailrace.usecase.declaration import UseCase

SAMPLE_S = 2.0
STAGES = ("features", "inference", "feedback")
"""Services an event passes, in order."""
HISTORY_S = 7_200
POINTS = ("at_ms", "events_per_s", "features_per_s", "inference_per_s", "feedback_per_s")
LAGS = tuple(f"{stage}_lag_s" for stage in STAGES)
LATENCIES = ("p50_ms", "p95_ms", "p99_ms")


class Follower:
    """What is known of a running use case, from its topics and its broker; `caught_up` once they were read.

    Args:
        settings: Address of the broker.
        use_case: The use case.
        lifecycle: Told when the topics are being followed; says when to stop.
    """

    def __init__(self, settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._use_case = use_case
        self._lifecycle = lifecycle
        self._view = LoopView(Topics(use_case.name))
        self.caught_up = False
        self._lock = threading.Lock()
        self._lags: dict[str, Lag] = {}
        self._lags_at_ms = 0
        self._lags_unknown = ""
        self._events_per_s: float | None = None
        self._history: deque[tuple[Any, ...]] = deque(maxlen=int(HISTORY_S / SAMPLE_S))
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (("follower", self._follow), ("sampler", self._sample))
        ]

    def start(self) -> None:
        """Starts both threads."""
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float) -> None:
        """Waits for both to end."""
        for thread in self._threads:
            thread.join(timeout_s)

    def snapshot(self) -> dict[str, Any]:
        """Everything as of now, JSON-ready. Times are epoch milliseconds, wall clock but for stream times."""
        now_ms = _now_ms()
        with self._lock:
            view, vitals = self._view, self._view.vitals
            latency = vitals.latency(now_ms)
            degraded_share, reasons = vitals.degraded(now_ms)
            champion = view.routing.variants[0].model_version if view.routing is not None else ""
            evidence = Evidence(
                unwell=vitals.unwell(SERVICES, now_ms),
                lags={stage: self._lags[stage] for stage in STAGES if stage in self._lags},
                lags_unknown=self._lags_unknown,
                degraded_share=degraded_share,
                degraded_reasons=reasons,
                p99_ms=latency["p99_ms"],
                budget_ms=self._use_case.plan.latency_budget_ms,
                alarms=view.active_alarms,
                failed_run=view.failed_run,
                champion=champion,
                predictions_seen=latency["p50_ms"] is not None or bool(view.quality()),
            )
            return {
                "use_case": self._use_case.name,
                "at_ms": now_ms,
                "watermark_ms": view.watermark_ms,
                "status": msgspec.to_builtins(status_of(evidence)),
                "flow": {"at_ms": self._lags_at_ms, "stages": self._stages(now_ms)},
                "latency": {**latency, "budget_ms": self._use_case.plan.latency_budget_ms, "at_ms": now_ms},
                "degraded": {"share": degraded_share, "by_reason": reasons},
                "routing": msgspec.to_builtins(view.routing),
                "workers": vitals.workers(now_ms),
                **view.panels(),
            }

    def history(self) -> dict[str, list[Any]]:
        """The last two hours as columns, one entry every two seconds; None where nothing was known."""
        with self._lock:
            rows = list(self._history)
        columns = zip(*rows, strict=True) if rows else ([] for _ in (*POINTS, *LAGS, *LATENCIES))
        return {name: list(column) for name, column in zip((*POINTS, *LAGS, *LATENCIES), columns, strict=True)}

    @property
    def view(self) -> LoopView:
        """What the topics say; only for reads of single attributes."""
        return self._view

    def _stages(self, now_ms: int) -> list[dict[str, Any]]:
        rate = self._view.vitals.records_per_s
        events = {"stage": "events", "per_s": self._events_per_s, "lag_records": None, "lag_s": None}
        stages: list[dict[str, Any]] = [events]
        for stage in STAGES:
            records, seconds = None, None
            if (lag := self._lags.get(stage)) is not None:
                records, seconds = lag.records, _seconds(lag)
            stages.append({"stage": stage, "per_s": rate(stage, now_ms), "lag_records": records, "lag_s": seconds})
        return stages

    def _export(self, lags: Mapping[str, Lag]) -> None:
        metrics = self._lifecycle.metrics
        for consumer, lag in lags.items():
            metrics.lag_records.labels(consumer).set(lag.records)
            metrics.lag_seconds.labels(consumer).set(lag.seconds)

    def _guarded(self, work: Any) -> None:
        """Runs a thread's work again when the broker was away, for as long as the service runs."""
        while not self._lifecycle.stopping.is_set():
            try:
                work()
            except (BrokerUnavailable, KafkaException) as error:
                self._lifecycle.log.warning("following_interrupted", error=str(error))
                with self._lock:
                    self._lags_unknown = f"the broker does not answer: {error}"
                self._export(dict.fromkeys(SERVICES[:-1], Lag(records=math.nan, seconds=math.nan)))
                self._lifecycle.stopping.wait(SAMPLE_S)

    def _follow(self) -> None:
        view = LoopView(Topics(self._use_case.name))
        reader = group_reader(self._settings, "tailrace.reader")
        try:
            places = [(topic, number) for topic in view.subscriptions for number in partitions_of(reader, topic)]
            reader.assign([TopicPartition(topic, number, 0) for topic, number in places])
            behind = set(places)
            while not self._lifecycle.stopping.is_set():
                records = reader.consume(1_000, timeout=0.2)
                # Until the topics are read to their ends once, the old view stands.
                with self._lock:
                    for record in records:
                        error = record.error()
                        if error is None:
                            view.apply(to_message(record))
                        elif error.code() == KafkaError._PARTITION_EOF:
                            behind.discard((record.topic(), record.partition()))
                        elif not error.retriable():
                            raise KafkaException(error)
                    if not behind and self._view is not view:
                        self._view = view
                        self.caught_up = True
                        self._lifecycle.ready(True)
        finally:
            reader.close()

    def _sample(self) -> None:
        probe = LagProbe(self._settings, self._use_case)
        try:
            while not self._lifecycle.stopping.wait(SAMPLE_S):
                lags, now_ms = probe.measure(), _now_ms()
                events_per_s = probe.events_per_s(now_ms)
                self._export(lags)
                with self._lock:
                    self._lags, self._lags_at_ms, self._lags_unknown = lags, now_ms, ""
                    self._events_per_s = events_per_s
                    rates = [self._view.vitals.records_per_s(stage, now_ms) for stage in STAGES]
                    latency = self._view.vitals.latency(now_ms)
                    behind = [_seconds(lags[stage]) for stage in STAGES]
                    self._history.append(
                        (now_ms, events_per_s, *rates, *behind, *(latency[name] for name in LATENCIES))
                    )
        finally:
            probe.close()


def _seconds(lag: Lag) -> float | None:
    """For JSON, which has no NaN."""
    return None if math.isnan(lag.seconds) else round(lag.seconds, 1)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
