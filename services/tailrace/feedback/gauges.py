"""What feedback knows at a tick, as gauges; and what its joins have counted."""

from __future__ import annotations

from collections import Counter

from tailrace.backends.telemetry import Metrics
from tailrace.contracts.metrics import METRICS
from tailrace.contracts.quality import Drift, Reading
from tailrace.core.metric_watch import MATURE
from tailrace.core.monitoring import Monitor
from tailrace.core.number_readings import NumberReadings
from tailrace.core.quality import DAY_MS, QualityWindows
from tailrace.core.readings import Readings
from tailrace.feedback.overview import Fading, Overview

_KINDS = METRICS["alarms_active"].labels[0].values
_VARIANTS = METRICS["quality"].labels[1].values

TERMS = frozenset({"threshold", "error_step", "quantile"})
"""What stands beside metrics to say in which terms they are meant."""


class Gauges:
    """Exports quality, drift and alarms. What is no longer known loses its series.

    Args:
        metrics: Prometheus handles.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._version = ""

    def champion(self, epoch: int, monitor: Monitor) -> None:
        """Takes note of the champion, after a restart too; what was measured of another one is forgotten."""
        metrics = self._metrics
        metrics.epoch.set(epoch)
        if monitor.version != self._version:
            self._version = monitor.version
            for gauge in (metrics.drift_score, metrics.drift_limit, metrics.quality_drop, metrics.quality_drop_limit):
                gauge.clear()
        self.alarms(monitor)

    def clear(self) -> None:
        """Withdraws everything: another worker speaks of it now."""
        metrics = self._metrics
        for gauge in (
            *(metrics.drift_score, metrics.drift_limit, metrics.quality_drop, metrics.quality_drop_limit),
            *(metrics.quality, metrics.quality_maturity, metrics.quality_end, metrics.quality_reading),
            *(metrics.quality_reading_bound, metrics.quality_reading_maturity, metrics.alarms_active),
        ):
            gauge.clear()

    def drift(self, drift: Drift) -> None:
        """Exports the distance of one feature, or of the score."""
        self._metrics.drift_score.labels(drift.subject).set(drift.value)
        self._metrics.drift_limit.labels(drift.subject).set(drift.threshold)

    def tick(
        self, overview: Overview, threshold: float, readings: Readings | NumberReadings, fading: Fading | None
    ) -> None:
        """Exports what a tick of stream time has changed; `threshold` is that of decisions."""
        metrics = self._metrics
        metrics.quality_drop.clear()
        metrics.quality_drop_limit.clear()
        for name, (drop, limit) in overview.monitor.drops.items():
            metrics.quality_drop.labels(name).set(drop)
            metrics.quality_drop_limit.labels(name).set(limit)
        metrics.quality.clear()
        metrics.quality_maturity.clear()
        metrics.quality_end.clear()
        for gauge in (metrics.quality_reading, metrics.quality_reading_bound, metrics.quality_reading_maturity):
            gauge.clear()
        for variant in _VARIANTS:
            self._quality(variant, overview.windows, threshold)
            self._readings(variant, overview.windows, readings, threshold, fading)
        self.alarms(overview.monitor)

    def _quality(self, variant: str, windows: QualityWindows, threshold: float) -> None:
        mature = [
            key for key in windows if key.slice == "" and key.variant == variant and windows.maturity(key) >= MATURE
        ]
        if not mature:
            return
        # On the day of a promotion there are two versions: both were champion.
        newest_ms = max(key.start_ms for key in mature)
        taken = [key for key in mature if key.start_ms == newest_ms]
        for name, value in windows.metrics(taken, threshold).items():
            if value is not None and name not in TERMS:
                self._metrics.quality.labels(name, variant).set(value)
        self._metrics.quality_maturity.labels(variant).set(min(windows.maturity(key) for key in taken))
        self._metrics.quality_end.labels(variant).set((newest_ms + DAY_MS) / 1000)

    def _readings(
        self,
        variant: str,
        windows: QualityWindows,
        readings: Readings | NumberReadings,
        threshold: float,
        fading: Fading | None,
    ) -> None:
        """The three readings of the newest day, of the version that made most of its predictions."""
        key = windows.newest(variant)
        if key is None:
            return
        final = Reading(metrics=windows.metrics([key], threshold), intervals=windows.intervals(key, threshold))
        found: dict[str, Reading | None] = {
            "estimate": readings.estimate(key),
            "provisional": readings.provisional(key),
            "final": final,
        }
        if fading is not None and key == fading.key:
            found["fading"] = Reading(metrics=fading.metrics)
        for name, reading in found.items():
            if reading is None:
                continue
            for metric, value in reading.metrics.items():
                if value is None or metric in TERMS:
                    continue
                self._metrics.quality_reading.labels(metric, variant, name).set(value)
                for bound, end in zip(("low", "high"), reading.intervals.get(metric, ()), strict=False):
                    self._metrics.quality_reading_bound.labels(metric, variant, name, bound).set(end)
        self._metrics.quality_reading_maturity.labels(variant).set(windows.maturity(key))

    def alarms(self, monitor: Monitor) -> None:
        """Exports how many alarms of each kind stand."""
        standing: Counter[str] = Counter(alarm.kind for alarm in monitor.alarms)
        for kind in _KINDS:
            self._metrics.alarms_active.labels(kind).set(standing[kind])
